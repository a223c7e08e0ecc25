"""Configuration: which store to open and how, from a mapping, a TOML or YAML file, or the environment."""

from ckpt.config.loading import from_environment, load
from ckpt.config.settings import Config
from ckpt.durations import parse_duration

__all__ = ["Config", "from_environment", "load", "parse_duration"]
