"""Checks of synthesized speech before anyone hears it."""

import numpy as np

_SILENCE = 10 ** (-60 / 20)
# Nobody says two text tokens, bytes even, in one of 25 speech tokens a second. Of few it proves
# nothing: a token can be a mark.
_LEAST_RATIO, _ENOUGH_TEXT = 0.5, 20
_OF_SEEN = (
    0.5  # of the fewest speech tokens a text token in the evaluation: other text is said faster
)
NOT_FINITE = "the vocoder gave NaN or infinite samples; the weights or the host are bad"


def least(text_tokens: int, min_ratio: float, seen: float | None = None) -> int:
    """How many speech tokens a text has at least, if it is spoken whole.

    `min_ratio` is the model's least number of speech tokens a text token, `seen` the least that was
    observed in its evaluation.
    """
    own = int(text_tokens * min_ratio)
    if seen is None or text_tokens < _ENOUGH_TEXT:
        return own
    return max(own, int(text_tokens * seen * _OF_SEEN))


def faults(
    audio: np.ndarray, *, ended: bool, text_tokens: int, speech_tokens: int, least: int = 0
) -> list[str]:
    """Reasons not to use the audio [n], each one line; none if it is fine.

    Runaway: the language model reached its length limit without ending. Ended early: with fewer
    than the `least` tokens that it should have for the text, which the original allows too, as it
    masks one of several stop ids until then. Too short: it ended long before the text can have been
    said. Silence: the loudest sample is below -60 dB of full scale.
    """
    found = []
    if not ended:
        found.append(
            f"runaway: {speech_tokens} speech tokens for {text_tokens} text tokens without an end; "
            "try another --seed or a shorter text"
        )
    short = text_tokens >= _ENOUGH_TEXT and speech_tokens < _LEAST_RATIO * text_tokens
    if ended and 0 < speech_tokens < least:
        found.append(
            f"ended early: {speech_tokens} of at least {least} tokens; try another --seed or a "
            "longer text"
        )
    elif ended and short and speech_tokens:
        found.append(
            f"too short: {speech_tokens} speech tokens for {text_tokens} text tokens, so text was "
            "left out; try another --seed or a shorter text"
        )
    if speech_tokens == 0:
        found.append("no speech: the language model ended at once; try another --seed")
    elif not np.isfinite(audio).all():
        found.append(NOT_FINITE)
    elif np.abs(audio).max() < _SILENCE:
        found.append("silence: no sample above -60 dB; try another --seed or voice")
    return found
