"""Models and tokenizers by name: on the hub, in a folder, in a GGUF file, or an adapter of PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from implicit_prm.errors import ImplicitPRMError, MissingExtraError, TokenizerMismatchError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NOT_CAUSAL = "an implicit PRM is a causal language model (AutoModelForCausalLM), whose rewards are log-probs"
_HELP = (
    "give the path of a folder with the model or of a GGUF file, or the hub's id; log in with "
    "`hf auth login` if it is gated"
)
# What tokenizers disagree about first: spaces, digits, line ends, accents, other scripts, mathematics.
_PROBES = (
    "Step 1: 12 + 345 = 357.\n\nStep 2: so the answer is 357.",
    "  \t x =\n\n\n  y  ",
    "1234567890 3.14159 -0.5e-7",
    "na\u00efve caf\u00e9 \u00bd \u221a2 \u2192 \u221e \u2264",
    "\u4f60\u597d\uff0c\u4e16\u754c \u041f\u0440\u0438\u0432\u0435\u0442 \U0001f642",
    r"\[ \boxed{\frac{a_{1}}{2}} \]",
    "def f(x):\n    return x ** 2  # doesn't",
)


def load_model(name: str, *, trainable: bool = False, **options: Any) -> Any:
    """The causal language model of this name, in the dtype in which it was saved unless `options` say other.

    `options` are those of `AutoModelForCausalLM.from_pretrained`. The weights of an adapter are frozen unless
    it is loaded `trainable`. Raises `ImplicitPRMError` for what is not
    there, is no causal language model, or lacks a part of its weights.
    """
    from transformers import AutoModelForCausalLM

    settings = {"dtype": "auto", **options}
    _check_dtype(settings["dtype"])
    with readable_errors(name):
        if _is_adapter(name):
            return _with_adapter(name, trainable, settings)
        check_config(name)
        source = _source(name)
        if "gguf_file" in source:
            settings = _unpacked() | settings
        loaded: Any = AutoModelForCausalLM.from_pretrained(**source, **settings, output_loading_info=True)
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise ImplicitPRMError(
            f"{name!r} lacks {len(missing)} of the model's weights, {missing[0]} for one, which would be "
            f"random numbers; {_NOT_CAUSAL}"
        )
    return model


def without_weights(name: str) -> Any:
    """A causal language model of this shape on the device "meta", which takes no memory.

    Raises `ImplicitPRMError` for what is not there or is no causal language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with readable_errors(name):
        check_config(name)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(**_source(name)))


def _check_dtype(dtype: Any) -> None:
    import torch

    if (
        isinstance(dtype, str)
        and dtype != "auto"
        and not isinstance(getattr(torch, dtype, None), torch.dtype)
    ):
        raise ImplicitPRMError(f"there is no dtype {dtype!r}; take float32, bfloat16, float16 or auto")


def check_device(device: Any) -> None:
    """Raises `ImplicitPRMError` for a device that torch does not know or that is not there."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # a torch without CUDA asserts it
        raise ImplicitPRMError(
            f"the device {device!r} cannot be used: {_first_line(error)}; take cpu, or cuda where a GPU is"
        ) from error


def unwrapped(model: Any) -> Any:
    """The model inside a wrapper such as `DistributedDataParallel`."""
    return getattr(model, "module", model)


def max_positions(model: Any) -> int | None:
    """The most tokens that a model reads in one piece; None where its config sets no limit."""
    config = getattr(unwrapped(model), "config", None)
    text = config.get_text_config() if config is not None else None
    return getattr(text, "max_position_embeddings", None)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of the model of this name. Raises `ImplicitPRMError` if there is none."""
    from transformers import AutoTokenizer

    with readable_errors(name):
        return AutoTokenizer.from_pretrained(**_source(name))


def check_config(name: str) -> None:
    """Raises `ImplicitPRMError` for a classifier, a reward model with a head of values, and the like.

    Loading such a one as a causal language model would give it a random head without a word.
    """
    from transformers import AutoConfig

    source = _source(name)
    if "gguf_file" in source:
        return  # llama.cpp has causal language models only, and reading the file takes a while
    config = AutoConfig.from_pretrained(**source)
    names = config.architectures or []
    wrong = [each for each in names if "Classification" in each or "Reward" in each]
    if wrong or config.is_encoder_decoder:
        raise ImplicitPRMError(f"{name!r} is a {', '.join(names) or config.model_type}: {_NOT_CAUSAL}")


def check_causal(model: Any, what: str) -> None:
    """Raises `ImplicitPRMError` for a model that gives no logits of next tokens."""
    model = unwrapped(model)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None or model.config.is_encoder_decoder:
        raise ImplicitPRMError(f"{what} is a {type(model).__name__}: {_NOT_CAUSAL}")


def check_same_tokenizer(tokenizer: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> None:
    """Raises `TokenizerMismatchError` where the reference's tokenizer reads text differently (section 2.5).

    Compared are the sizes of the vocabularies, the ids of the special tokens, and seven probe texts. Another
    choice among the same special tokens is no difference, nor is one that only one of them has added: text
    is encoded by the model's own tokenizer.
    """
    if tokenizer.vocab_size != other.vocab_size:
        raise _mismatch(f"the vocabularies have {tokenizer.vocab_size} and {other.vocab_size} tokens")
    ids = other.get_vocab()
    for token in tokenizer.all_special_tokens:
        ours, theirs = tokenizer.convert_tokens_to_ids(token), ids.get(token)
        if theirs is not None and ours != theirs:
            raise _mismatch(f"the special token {token!r} is {ours} in one and {theirs} in the other")
    for probe in _PROBES:
        ours, theirs = (each(probe, add_special_tokens=False)["input_ids"] for each in (tokenizer, other))
        if ours != theirs:
            raise _mismatch(f"{probe!r} is {ours} in one and {theirs} in the other")


def _mismatch(difference: str) -> TokenizerMismatchError:
    return TokenizerMismatchError(
        f"model and reference have different tokenizers: {difference}; log-probs of different tokens have no "
        "ratio: take the model that training began from as reference, or none"
    )


def _source(name: str) -> dict[str, str]:
    """The arguments of `from_pretrained` that say where something is."""
    path = Path(name)
    if path.suffix == ".gguf" and path.is_file():
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            raise ImplicitPRMError(f"{path} has {len(files)} GGUF files; give the path of one of them")
        if files:
            return _source(str(files[0]))
    return {"pretrained_model_name_or_path": name}


def _unpacked() -> dict[str, Any]:
    """Under this setting a GGUF file's model can be trained and saved; transformers once had no other."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)  # since 5.19
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def _is_adapter(name: str) -> bool:
    from transformers.utils.peft_utils import find_adapter_config_file

    return Path(name).suffix != ".gguf" and find_adapter_config_file(name) is not None


def _with_adapter(name: str, trainable: bool, settings: dict[str, Any]) -> Any:
    from peft import AutoPeftModelForCausalLM

    return AutoPeftModelForCausalLM.from_pretrained(name, is_trainable=trainable, **settings)


@contextmanager
def readable_errors(name: str) -> Iterator[None]:
    """A model that is not there, gated, offline or in need of a library is the user's to mend."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f"loading {name!r} needs a library that is not installed: {_first_line(error)}; the extras "
            "'implicit-prm[gguf]' and 'implicit-prm[peft]' bring those of GGUF files and adapters"
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, ImplicitPRMError):
            raise
        raise ImplicitPRMError(f"cannot load {name!r}: {_first_line(error)}; {_HELP}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
