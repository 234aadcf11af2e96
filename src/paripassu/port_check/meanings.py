"""What inputs and outputs of models are called, and which names mean the same."""

from __future__ import annotations

import re

from paripassu.sides.registry import SIDES

# Names of one meaning, after their prefix; the first one stands for all.
INPUTS = (
    ("ids", "input_ids", "token_ids", "tokens", "input_tokens", "input_word_ids"),
    ("mask", "attention_mask", "padding_mask", "input_mask"),
    ("segments", "token_type_ids", "segment_ids", "input_type_ids", "type_ids"),
    ("positions", "position_ids", "position", "cache_position"),
    ("images", "pixel_values", "image", "pixels", "imgs", "img"),
    ("features", "input_features", "input_values", "audio", "waveform"),
    ("embeddings", "inputs_embeds", "input_embeddings"),
)
OUTPUTS = (
    ("sequence", "last_hidden_state", "sequence_output", "decoder_sequence_output"),
    ("encoder", "encoder_last_hidden_state", "encoder_sequence_output"),
    ("pooled", "pooler_output", "pooled_output"),
    ("logits", "prediction", "predictions", "prediction_logits"),
    ("logits of images", "logits_per_image", "vision_logits", "image_logits"),
    ("logits of texts", "logits_per_text", "text_logits"),
    ("probabilities", "probs", "scores"),
    ("loss", "total_loss"),
)
MAIN = (
    "sequence",
    "logits",
    "output",
)  # what a single output is, the first that is there
NOTHING = ("inputs?", "args?", "outputs?", *(y for x in SIDES for y in x.given_names))
UNNAMED = re.compile(rf"({'|'.join(NOTHING)})?(_?\d+)?")
PREFIX = re.compile(r"(encoder|decoder)_(.+)")


def meaning_of_input(name: str) -> str:
    """The same text for names of one meaning: `ids` of `token_ids`."""
    found = PREFIX.fullmatch(name.lower())
    if found and found[1] == "decoder":
        rest = found[2]
        return f"decoder {_meaning(rest, INPUTS) or rest}"
    plain = found[2] if found else name.lower()
    return _meaning(plain, INPUTS) or plain


def differ_in_meaning(left: str, right: str) -> bool:
    """Whether two names of inputs are known to mean different things."""
    names = [
        found[2] if (found := PREFIX.fullmatch(x.lower())) else x.lower()
        for x in (left, right)
    ]
    known = all(_meaning(x, INPUTS) for x in names)
    return known and meaning_of_input(left) != meaning_of_input(right)


def meaning_of_output(name: str) -> str:
    """The same text for names of one meaning: `pooled` of `pooler_output`."""
    plain = name.lower()
    return _meaning(plain, OUTPUTS) or plain


def is_unnamed(name: str) -> bool:
    """Whether a name says nothing: `input`, `output1`, `keras_tensor_3`."""
    return UNNAMED.fullmatch(name.lower()) is not None


def _meaning(name: str, table: tuple[tuple[str, ...], ...]) -> str | None:
    return next((names[0] for names in table if name in names), None)
