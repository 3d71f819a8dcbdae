"""Keeps what diffusers, transformers and peft tell programmers off the terminal of the person who asks for a picture.

Their warnings and progress bars are switched off while they work and put back after: the settings are the process's,
and a notebook that uses these libraries itself keeps its own.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("diffusers", "transformers", "peft", "huggingface_hub")


@contextmanager
def quiet() -> Iterator[None]:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in LIBRARIES]
    levels = [logger.level for logger in loggers]
    bars = [module for module in (diffusers_logging, transformers_logging) if module.is_progress_bar_enabled()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        for module in bars:
            module.disable_progress_bar()
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            for module in bars:
                module.enable_progress_bar()
