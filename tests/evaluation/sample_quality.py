"""What the checks of a data set would tell: 77 labels of banking, or three of which one is rare."""

from tests.evaluation.sample_reports import HOSTILE, labels_of

ARABIC = "أي من الأدوية التالية يسبب بطء القلب؟"
LONG_WORD = "x" * 700
TEXTS = [
    "Where is my new card, it should have come two weeks ago",
    ARABIC,
    HOSTILE,
    "Toți pacienții cu această boală prezintă, cu excepția:",
    LONG_WORD,
    "a longer text, " * 60,
]


def sample_data(num_labels: int = 77) -> dict:
    """A data report."""
    labels = labels_of(num_labels)
    train = {label: 30 + 7 * (place % 11) for place, label in enumerate(labels)}
    rare = {label: rows // 8 for label, rows in train.items()}
    parts = {"train": sum(train.values()), "validation": sum(rare.values()), "test": sum(rare.values())}
    dropped = {"exact_duplicate": 90, "empty_label": 11, "near_duplicate_across_parts": 23, "ragged": 4}
    found = [
        {
            "kind": "near_duplicate",
            "count": 23,
            "fate": "dropped from the earlier part (`near_duplicate_across_parts`)",
            "what": "records nearly repeat one in a later part",
            "examples": [{"text": TEXTS[0], "part": "train", "place": "a.csv:9", "other": "b.csv:7 (test)"}],
        },
        {"kind": "group", "count": 4, "fate": "kept together", "examples": []},
        {"kind": "time", "count": 0, "fate": "", "examples": []},
    ]
    return {
        "read": sum(parts.values()) + sum(dropped.values()),
        **parts,
        "dropped": dropped,
        "labels": {"train": train, "validation": rare, "test": rare},
        "split": {"kind": "stratified", "why": "No dates and no groups were found, so the split is `stratified`."},
        "leakage": {"policy": "repair", "found": found},
        "near_duplicates": sample_clusters(),
        "notes": ["two texts occur under different labels; all of their records are dropped", HOSTILE],
    }


def sample_clusters() -> dict:
    largest = [{"size": 9, "texts": TEXTS}, {"size": 3, "texts": TEXTS[:3]}, {"size": 2, "texts": TEXTS[3:5]}]
    return {
        "threshold": 0.8,
        "clusters": 31,
        "records": 70,
        "pairs": 44,
        "largest": largest * 3,
        "sizes": {str(size): 40 - 2 * size for size in range(2, 19)},
        "contained": {"count": 3, "examples": [{"inner": "new card", "outer": TEXTS[0]}]},
    }


def sample_examples(labels: list[str]) -> list[dict]:
    return [
        {
            "text": TEXTS[place % len(TEXTS)],
            "label": labels[place % len(labels)],
            "note": f"looks like {labels[(3 * place + 1) % len(labels)]} (0.93)",
            "source": "questions of the second quarter.csv",
            "line": 12 + place,
            "part": "train",
        }
        for place in range(20)
    ]


def sample_findings(examples: list[dict]) -> list[dict]:
    return [
        {
            "id": "label_errors",
            "level": "act",
            "title": "412 labels are likely wrong",
            "count": 412,
            "share": 0.047,
            "why": "A model that is trained on them learns the mistakes, and the figures are too low.",
            "do": "Read the rows below; `data.clean: {label_errors: drop}` leaves them out.",
            "examples": examples,
        },
        {
            "id": "near_duplicates",
            "level": "look",
            "title": "70 records are nearly the same as another",
            "count": 70,
            "share": 0.008,
            "why": "They count twice in training.",
            "do": "Look at the largest clusters.",
            "examples": [{"text": HOSTILE}, TEXTS[:2], ARABIC],
        },
        {"id": "languages", "level": "fine", "title": "One language", "count": 1, "why": "English.", "examples": []},
        {"id": "encodings", "level": "fine", "title": "Every text was decoded", "count": 0},
    ]


def sample_texts() -> dict:
    """Sections on the texts."""
    return {
        "tokens": {
            "text": {
                "counts": [120, 900, 2400, 1800, 700, 150, 40, 12, 3, 0, 1],
                "edges": [0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176],
                "context": 128,
                "cut": 4,
                "cut_share": 0.00065,
                "p50": 44,
                "p95": 88,
                "max": 171,
                "rows": 6126,
                "dropped": 2,
                "lost_tokens": 77,
            }
        },
        "languages": [
            {"language": "en", "name": "English", "count": 5900, "share": 0.965},
            {"language": "ar", "name": "Arabic", "count": 150, "share": 0.0245},
            {"language": "unsure", "name": "too short or mixed to say", "count": 64, "share": 0.0105},
        ],
        "encodings": {
            "sources": {"questions of the second quarter.csv": "utf-8", HOSTILE: "cp1250"},
            "repaired": False,
            "repairable": 3,
            "lost": 1,
            "examples": [{"text": "ToÈ›i pacienÈ›ii", "note": "Toți pacienții", "source": "a.csv", "line": 3}],
        },
    }


def sample_judged(labels: list[str], examples: list[dict], checked: int) -> dict:
    """Sections that take a model."""
    return {
        "label_errors": {
            "checked": checked,
            "flagged": 412,
            "method": "confident learning on cross-validated frozen embeddings",
            "share": 0.0737,
            "probe_accuracy": 0.86,
            "pairs": [{"label": labels[0], "looks_like": labels[1], "count": 21}, {"label": HOSTILE, "count": 3}],
            "per_label": {label: {"flagged": 40 - place % 40, "rows": 60} for place, label in enumerate(labels)},
        },
        "outliers": {
            "checked": checked,
            "flagged": 14,
            "threshold": 0.62,
            "median": 0.2,
            "counts": [200, 1900, 2300, 900, 200, 30, 9, 5],
            "edges": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
            "examples": examples[:3],
        },
        "difficulty": {
            "metric": "accuracy",
            "value": 0.86,
            "low": 0.85,
            "high": 0.87,
            "majority": 0.021,
            "rows": checked,
            "folds": 5,
        },
    }


def sample_rows() -> dict:
    """Sections on rows to read again."""
    return {
        "boilerplate": {
            "rows": 9,
            "kinds": {"markup": 4, "symbols": 0, "repeated_lines": 5},
            "lines": [{"text": "Sent from my phone", "count": 31}],
            "starts": [{"text": HOSTILE, "count": 12}],
            "examples": [{"text": "<p>Click <a href='http://x.y'>here</a></p>"}],
        },
        "many_answers": {
            "prompts": 2,
            "records": 5,
            "examples": [{"prompt": TEXTS[0], "answers": ["soon", ARABIC], "source": "a.csv", "line": 3}],
        },
    }


def sample_quality(num_labels: int = 77) -> dict:
    """The document of quality.json."""
    labels, data = labels_of(num_labels), sample_data(num_labels)
    examples = sample_examples(labels)
    checked = data["train"] + data["validation"]
    return {
        "findings": sample_findings(examples),
        **sample_texts(),
        **sample_judged(labels, examples, checked),
        **sample_rows(),
        "labels": {
            "train": data["labels"]["train"],
            "validation": data["labels"]["validation"],
            "imbalance_ratio": 3.3,
            "majority_share": 0.021,
        },
        "clusters": sample_clusters(),
        "duplicates": {"exact": 90, "contradictory": 2},
        "seconds": {"embeddings": 12.3, "label_errors": 4.0, "encodings": 0.01, "all": 16.6},
        "embedder": "starter:minilm",
        "embedder_note": None,
        "looked_at": {"train": data["train"], "validation": data["validation"], "rows": checked, "sampled": None},
    }
