"""Every setting of the program once: its environment variable, its default, what it is for."""

import os
from dataclasses import dataclass
from pathlib import Path

from .errors import OptionError


@dataclass(frozen=True)
class Setting:
    variable: str
    default: str
    help: str

    def value(self) -> str:
        """What the environment says, else the default."""
        return os.environ.get(self.variable) or self.default


SETTINGS = {
    "home": Setting("DALLE_FLOW_HOME", "~/.cache/dalle-flow", "folder of fetched weights"),
    "debug": Setting("DALLE_FLOW_DEBUG", "0", "1 shows a traceback with every error"),
}
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def home() -> Path:
    """The folder where fetched weights are kept; not created here."""
    return Path(SETTINGS["home"].value()).expanduser()


def is_on(name: str) -> bool:
    """A setting that is yes or no; OptionError for any other word."""
    setting = SETTINGS[name]
    word = setting.value().strip().lower()
    if word not in (*YES, *NO):
        raise OptionError(f"{setting.variable} must be one of {', '.join((*YES, *NO))}, got {word!r}", field=name)
    return word in YES
