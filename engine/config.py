"""The settings, read once: packaged defaults < HOME/config.toml < MASKLOOP_SECTION__KEY < overrides.

The only module that reads configuration files or the environment. configs/default.toml explains every key.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from engine.errors import BadInput

PREFIX = "MASKLOOP_"
# Variables that are no key: the home folder, the tests' data, the build hook's "package without the page".
RESERVED = frozenset({"MASKLOOP_HOME", "MASKLOOP_SHARED", "MASKLOOP_SKIP_PAGE"})

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Overrides = Mapping[str, Mapping[str, object]]


class Section(BaseModel):
    """One table of the TOML file; a key it does not name is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Database(Section):
    """Where rows live and how long anyone waits for them."""

    url: str
    pool_size: Count
    max_overflow: Annotated[int, Field(ge=0)]
    pool_timeout_s: Seconds
    statement_timeout_s: Seconds
    lock_timeout_s: Seconds


class Files(Section):
    """Where blobs live: an fsspec URL."""

    url: str


class Web(Section):
    """The page's address, sessions and body limits."""

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    threads: Count
    trusted_hosts: tuple[str, ...]
    tls: bool
    session_idle_s: Seconds
    session_absolute_s: Seconds
    max_body_mb: Count
    max_upload_mb: Count
    login_per_account: Count
    login_per_address: Count
    metrics_token: Annotated[str, Field(pattern=r"^([!-~]{16,200})?$")]


class Limits(Section):
    """What one image, mask or listing may cost."""

    max_pixels: Count
    max_runs: Count
    max_prompts: Annotated[int, Field(ge=1, le=64)]
    max_masks_per_image: Count
    max_page: Count


class Worker(Section):
    """Wake-ups, leases and politeness of the workers."""

    broker: str
    key_prefix: str
    threads: Count
    devices: Annotated[tuple[str, ...], Field(min_length=1)]
    nice: Annotated[int, Field(ge=0, le=19)]
    lease_s: Seconds
    heartbeat_s: Seconds
    tick_s: Seconds
    stall_s: Seconds
    max_attempts: Count
    max_waiting: Count

    @model_validator(mode="after")
    def _beats_within_lease(self) -> Self:
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError("heartbeat_s must be at most half of lease_s, or a live job loses its lease")
        return self


class Assign(Section):
    """Lending images to annotators."""

    lease_s: Seconds


class Embed(Section):
    """Embeddings kept ready for the page."""

    ahead: Annotated[int, Field(ge=0)]
    dtype: Literal["float16", "float32"]


class Split(Section):
    """The held-out share."""

    val_percent: Annotated[int, Field(ge=0, le=90)]


class Train(Section):
    """What a round learns from, how long it runs and how its candidate is measured."""

    min_holdout_masks: Count
    recipe: str
    max_seconds: Seconds
    steps: Annotated[int, Field(ge=0)]
    processes: Count
    tensorboard: str
    mlflow: str
    pictures_every: Annotated[int, Field(ge=0)]
    automatic_masks: Literal["never", "always"]
    human_oversampling: Annotated[float, Field(ge=1, le=1000)]
    eval_clicks: tuple[Count, ...]
    noc_iou: Annotated[float, Field(gt=0, lt=1)]
    click_cap: Count


class Logs(Section):
    """What every process writes to stderr: lines for people, or JSON for a collector."""

    format: Literal["text", "json"]
    level: Literal["debug", "info", "warning", "error"]


class Detector(Section):
    """The box proposer of stage 2."""

    max_seconds: Seconds
    steps: Annotated[int, Field(ge=0)]
    false_prefill_rate: Annotated[float, Field(gt=0, lt=1)]
    undrawn_is_false: Annotated[float, Field(ge=0, le=1)]


class Gc(Section):
    """What is collected: embeddings of versions nobody uses, files no row names."""

    every_s: Annotated[float, Field(ge=0)]
    keep_versions: Annotated[int, Field(ge=0)]
    orphan_after_s: Seconds


class Settings(BaseSettings):
    """All settings, frozen; made by `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=False, extra="forbid", frozen=True
    )

    home: Path
    database: Database
    files: Files
    web: Web
    limits: Limits
    worker: Worker
    assign: Assign
    embed: Embed
    split: Split
    train: Train
    detector: Detector
    gc: Gc
    logs: Logs

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The four sources, strongest first."""
        files = (init_settings()["home"] / "config.toml", configs_folder() / "default.toml")
        tables = (TomlConfigSettingsSource(settings_cls, toml_file=file) for file in files)
        return (init_settings, env_settings, *tables)

    @model_validator(mode="before")
    @classmethod
    def _name_home(cls, tables: dict[str, object]) -> dict[str, object]:
        home = str(tables["home"])
        return {name: _with_home(value, home) for name, value in tables.items()}


def load_settings(home: Path | None = None, overrides: Overrides | None = None) -> Settings:
    """Reads every source once and returns the settings; creates nothing.

    `overrides` is {section: {key: value}}, as command-line options give it. `home` falls back to
    MASKLOOP_HOME, then to ~/.maskloop. Raises BadInput with the offending keys for an unknown key, a wrong
    value or a broken TOML file.
    """
    _refuse_unknown_variables(os.environ)
    folder = (home or Path(os.environ.get("MASKLOOP_HOME") or "~/.maskloop")).expanduser().absolute()
    tables: dict[str, Any] = {"home": folder} | {name: dict(keys) for name, keys in (overrides or {}).items()}
    try:
        return Settings(**tables)
    except ValidationError as error:
        raise BadInput(_sentence(error, folder)) from None
    except SettingsError as error:
        raise BadInput(f"{error}: give lists as JSON, as in MASKLOOP_TRAIN__EVAL_CLICKS='[1, 3]'") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{folder / 'config.toml'} is not valid TOML: {error}") from None


def environment_of(home: Path, overrides: Overrides | None = None) -> dict[str, str]:
    """The variables that hand a child process the same home and overrides (for `maskloop up`)."""
    variables = {"MASKLOOP_HOME": str(home)}
    for section, keys in (overrides or {}).items():
        for key, value in keys.items():
            text = value if isinstance(value, str) else json.dumps(value)
            variables[f"{PREFIX}{section}__{key}".upper()] = text
    return variables


def configs_folder() -> Path:
    """default.toml, stages/ and models/: packaged as engine/_configs in a wheel, configs/ in a checkout."""
    return _shipped("configs")


def migrations_folder() -> Path:
    """Alembic's script folder: engine/_migrations in a wheel, migrations/ in a checkout."""
    return _shipped("migrations")


def read_toml(path: Path) -> dict[str, object]:
    """A parsed TOML file, such as a stage; BadInput names the file when it is missing or broken."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}") from None


def _shipped(name: str) -> Path:
    here = Path(__file__).parent
    packaged = here / f"_{name}"
    return packaged if packaged.is_dir() else here.parent / name


def _with_home(value: object, home: str) -> object:
    if isinstance(value, str):
        return value.replace("{home}", home)
    if isinstance(value, dict):
        return {key: _with_home(inner, home) for key, inner in value.items()}
    return value


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {f"{PREFIX}{section}__{key}".upper() for section, key in _keys()} | RESERVED
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise BadInput(f"unknown variable {name}: see configs/default.toml for the keys, or unset it")


def _keys() -> list[tuple[str, str]]:
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    return [
        (name, key)
        for name, section in sections.items()
        if isinstance(section, type) and issubclass(section, Section)
        for key in section.model_fields
    ]


def _sentence(error: ValidationError, home: Path) -> str:
    faults = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        unknown = fault["type"] == "extra_forbidden"
        faults.append(
            f"unknown key {place}" if unknown else f"{place}: {fault['msg'].removeprefix('Value error, ')}"
        )
    where = f"correct {home / 'config.toml'}, the MASKLOOP_ variable or the option"
    return f"settings refused: {'; '.join(faults)} ({where}; keys are explained in configs/default.toml)"
