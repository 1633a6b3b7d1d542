"""How each side does its work: ours through `fit`, plain loops, TRL's and transformers' trainers."""
