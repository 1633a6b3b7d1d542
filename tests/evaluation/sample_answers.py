"""Reports of a chat model as a run would write them, from a model of counted words."""

from tests.cache_model import CacheModel, conversation, conversations, examples
from tests.evaluation.sample_reports import HOSTILE, sample_report

from reglaj.evaluation.config import EvaluateConfig
from reglaj.tasks.answering import evaluate_answers

LONG = "So long an answer that nobody reads it to its end. " * 40


def sample_answers(*, num_rows: int = 60, baselines=("untuned", "few_shot"), samples: int = 200, **config):
    """(report, extras) as the pipeline hands them to `write_report`; the first test rows hold what is hard to show."""
    train = [*conversations(80, seed=1), conversation("hostile?", HOSTILE), conversation("long?", LONG)]
    odd = [
        conversation(HOSTILE, HOSTILE),
        conversation("Cât durează transferul până în țară?", LONG, system="Răspunde politicos."),
        conversation("متى تصل بطاقتي؟", "تصل بطاقتك خلال ثلاثة أيام."),
        conversation("```python\nprint('<b>')\n```", "x" * 900),
    ]
    test = [*odd, *conversations(num_rows - len(odd), seed=2)]
    settings = EvaluateConfig(bootstrap_samples=samples, generate_rows=config.pop("generate_rows", num_rows), **config)
    result = evaluate_answers(
        examples(test), CacheModel(train).answerer(), settings, train=train, baselines=baselines, seed=3
    )
    report, extras = sample_report(3, 200, samples=100)
    rendering = {"records": 700, "examples": 704, "tokens": 90_000, "supervised_tokens": 31_500, "learnt": "answers"}
    report |= {
        "name": "support-answers",
        "task": "chat",
        "model": "starter:smollm2",
        "method": "lora",
        "test": result.test,
        "baselines": result.baselines,
        "notes": result.notes,
        "cut_texts": {"train": 0, "test": 1},
        "data": {
            "read": 720, "train": 560, "validation": 70, "test": num_rows, "key": "8f14e45fceea167a",
            "dropped": {"too_long": 720 - 630 - num_rows - 12, "broken_turns": 12}, "notes": [], "rendering": rendering,
        },
    }  # fmt: skip
    metrics = [
        {key: value for key, value in line.items() if key not in ("validation_accuracy", "validation_macro_f1")}
        for line in extras["metrics"]
    ]
    return report, {**extras, **result.extras, "mistakes": result.mistakes, "metrics": metrics}
