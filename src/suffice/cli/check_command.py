"""`suffice check`."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click

from suffice.cli import common, families
from suffice.core.config import Config
from suffice.core.errors import InputError, StoreError

LOW_DISK_MB = 500


@click.command()
@common.everywhere
def command(folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Check the configuration and the environment. Exit 1 if something would not work."""
    path = common.config_path(folder, config_file)
    settings = common.configured(folder, config_file)
    checks = [
        ("configuration", True, str(path) if path else "none found, defaults are used"),
        *_checks(folder, settings),
    ]
    if as_json:
        common.emit({"checks": [{"name": name, "ok": ok, "detail": detail} for name, ok, detail in checks]})
    else:
        for name, ok, detail in checks:
            click.echo(f"{'ok  ' if ok else 'FAIL'}  {name}: {detail}")
    return 0 if all(ok for _, ok, _ in checks) else 1


def _checks(folder: Path, settings: Config) -> Iterator[tuple[str, bool, str]]:
    yield "python", sys.version_info >= (3, 11), sys.version.split()[0]
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free / 2**20
    yield "disk", free > LOW_DISK_MB, f"{free:,.0f} MB free at {place}"
    if (folder / "suffice.db").exists():
        try:
            common.opened(folder, settings)
            yield "home", True, str(folder)
        except StoreError as error:
            yield "home", False, str(error)
    else:
        yield "home", os.access(place, os.W_OK), f"{folder} does not exist yet"
    if not settings.upstreams:
        yield "upstreams", False, "none: add [upstreams.NAME] with a base_url"
    for name, upstream in settings.upstreams.items():
        key = upstream.api_key_env
        if key is not None and not os.environ.get(key):
            yield f"upstream {name}", False, f"the environment variable {key} is not set"
            continue
        url = urlsplit(upstream.base_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            socket.create_connection((url.hostname or "", port), timeout=settings.server.connect_s).close()
            yield f"upstream {name}", True, f"{url.hostname}:{port} accepts connections"
        except OSError as error:
            yield f"upstream {name}", False, f"{url.hostname}:{port}: {error.strerror or error}"
    try:
        from suffice.specialists.embedding import shared_static_embedding

        shared_static_embedding()
        yield "linear family", True, "its embedding table can be read"
    except Exception as error:  # noqa: BLE001 - a doctor reports what it finds
        yield "linear family", False, str(error)
    try:
        lacking = families.no_encoder(settings.learn.encoder)
    except InputError as error:
        yield "encoder family", False, str(error)
    else:
        base = settings.learn.encoder or "the installed package's model"
        yield "encoder family", True, f"left out, {lacking}" if lacking else f"over {base}"
    try:
        lacking = families.no_causal(settings.learn.causal, settings.learn.runtime)
    except InputError as error:
        yield "causal family", False, str(error)
    else:
        base = settings.learn.causal or "the installed package's model"
        yield "causal family", True, f"left out, {lacking}" if lacking else f"over {base}"
