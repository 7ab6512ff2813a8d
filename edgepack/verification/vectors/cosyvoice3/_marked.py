"""The id of the token that ends an opening, which the original has fixed.

Source: cosyvoice/llm/llm.py (`CosyVoice3LM`), whatever the tokenizer of a checkpoint is.
"""

from dataclasses import replace

from edgepack.verification.reference import BundleUnderTest

_MARK = 151646  # `<|endofprompt|>` of the released tokenizers


def marked(subject: BundleUnderTest) -> BundleUnderTest:
    """The bundle with its own id for the original's."""
    frontend = subject.loaded.frontend
    own = frontend.tokenizer.token_to_id(frontend.end_of_prompt)
    return replace(subject, fixed={_MARK: own})
