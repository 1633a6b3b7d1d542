"""The two trainings that are killed: one model, one set of rows, one command each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from pathlib import Path
from typing import Any, Protocol

STEPS, EVERY, ROWS, BATCH = 24, 2, 240, 16
PLAIN = ("my", "the", "a", "is", "not", "where", "when", "why", "please", "help")
TOPICS = {"cards": ("card", "lost"), "fees": ("fee", "refund", "taxa"), "transfers": ("transfer", "late", "banii")}
LABELS = tuple(TOPICS)


class Side(Protocol):
    """How one of the two is run and looked at."""

    name: str

    def train(self, folder: Path) -> int:
        """In a process of its own: the command, which is the same before and after a kill. Returns the exit code."""

    def saves(self, folder: Path) -> dict[str, Path]:
        """Every save that has begun, by the name it will have in the end."""

    def is_whole(self, save: Path) -> bool:
        """Whether a save has all its files."""

    def weights(self, folder: Path) -> str:
        """SHA-256 of the weights that a finished training left."""

    def resumed_at(self, folder: Path, killed_at: float) -> int:
        """The step after which the last attempt went on; 0 for a fresh start."""


class Trainer:
    """transformers' own training loop."""

    name = "Trainer"

    def __init__(self, model: Path, rows: Path) -> None:
        self.model, self.rows = model, rows

    def train(self, folder: Path) -> int:
        import torch
        import transformers
        from transformers.trainer_utils import get_last_checkpoint

        class Begin(transformers.TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if not (folder / "begin").exists():
                    (folder / "begin").write_text(str(state.global_step), encoding="utf-8")

        transformers.logging.set_verbosity_error()
        torch.manual_seed(0)
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.model)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(self.model, num_labels=len(LABELS))
        rows = [json.loads(line) for line in self.rows.read_text(encoding="utf-8").splitlines()]
        data = [{**tokenizer(row["text"]), "labels": LABELS.index(row["label"])} for row in rows]
        output = folder / "out"
        output.mkdir(exist_ok=True)
        (folder / "begin").unlink(missing_ok=True)
        arguments = transformers.TrainingArguments(
            str(output),
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=2e-3,
            save_strategy="steps",
            save_steps=EVERY,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=data,  # type: ignore[arg-type]
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            callbacks=[Begin()],
        )
        # Told to resume where nothing was saved it raises: what a careful script asks first.
        trainer.train(resume_from_checkpoint=bool(get_last_checkpoint(str(output))))
        digest = hashlib.sha256()
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
        (folder / "weights").write_text(digest.hexdigest(), encoding="utf-8")
        return 0

    def saves(self, folder: Path) -> dict[str, Path]:
        return {path.name: path for path in _entries(folder / "out") if path.name.startswith("checkpoint-")}

    def is_whole(self, save: Path) -> bool:
        # It is the last file of a save, and the only one that says so.
        try:
            json.loads((save / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return True

    def weights(self, folder: Path) -> str:
        return (folder / "weights").read_text(encoding="utf-8")

    def resumed_at(self, folder: Path, killed_at: float) -> int:
        return int((folder / "begin").read_text(encoding="utf-8"))


class Reglaj:
    """`reglaj train recipe.yaml`."""

    name = "reglaj"

    def __init__(self, model: Path, rows: Path) -> None:
        self.recipe = rows.with_name("recipe.json")
        values = {
            "name": "tiny",
            "task": "classify",
            "model": str(model),
            "data": {"sources": [{"path": str(rows)}]},
            "method": "full",
            "train": {
                "max_steps": STEPS,
                "batch_size": BATCH,
                "learning_rate": 2e-3,
                "head_learning_rate": 2e-3,
                "checkpoint_every": EVERY,
                "device": "cpu",
            },
            "evaluate": {"baselines": [], "bootstrap_samples": 100},
        }
        self.recipe.write_text(json.dumps(values), encoding="utf-8")

    def train(self, folder: Path) -> int:
        from reglaj.cli import main

        return main(["train", str(self.recipe), "--runs", str(folder / "runs")])

    def saves(self, folder: Path) -> dict[str, Path]:
        found = {}
        for path in _entries(folder / "runs" / "tiny-001" / "checkpoints"):
            if path.name.lstrip(".").startswith("step-"):
                found[path.name.lstrip(".").partition(".")[0]] = path
        return found

    def is_whole(self, save: Path) -> bool:
        return not save.name.endswith(".tmp")

    def weights(self, folder: Path) -> str:
        manifest = json.loads((folder / "runs" / "tiny-001" / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["status"] == "finished"
        return str(manifest["weights_sha256"])

    def resumed_at(self, folder: Path, killed_at: float) -> int:
        text = (folder / "runs" / "tiny-001" / "metrics.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        return max((line["step"] for line in lines if line["time"] < killed_at), default=0)


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []


def write_material(folder: Path) -> None:
    """A tiny BERT with its tokenizer, and rows whose labels follow from their words."""
    import torch
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *PLAIN,
        *(word for words in TOPICS.values() for word in words),
    ]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder / "model")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = t.BertConfig(vocab_size=len(pieces), max_position_embeddings=64, **shape)
    t.AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(folder / "model")
    chance = random.Random(0)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            label = LABELS[number % 3]
            words = chance.choices(TOPICS[label], k=2) + chance.choices(PLAIN, k=chance.randint(2, 8))
            chance.shuffle(words)
            file.write(json.dumps({"text": " ".join(words), "label": label}) + "\n")
