"""`models export-onnx`: a model's encoder and decoder as ONNX files for other programs; see docs/onnx.md."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import print_json, progress_of, say
from engine.errors import BadInput

if TYPE_CHECKING:
    from engine.modeling.onnx_fidelity import Fidelity
    from engine.modeling.sam import Sam

# A scene has about thirty objects, and each object is asked for three times.
_MASKS_PER_SCENE = 30
_PROMPTS_PER_MASK = 3


def add_to(models: typer.Typer) -> None:
    """Hangs the verb into the group `models`."""
    models.command("export-onnx")(export_onnx)


def export_onnx(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")],
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="As `models list` names it.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A checkpoint instead, of any architecture.")
    ] = None,
    decoder_only: Annotated[
        bool, typer.Option("--decoder-only", help="Without the image encoder, which is the large one.")
    ] = False,
    prompts: Annotated[
        int, typer.Option(min=1, help="On so many a smaller decoder is compared with the exact one.")
    ] = 1000,
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write a model as ONNX files, compared with torch first, and onnx.json, which says how to use them.

    encoder.onnx, decoder.onnx, and decoders with smaller weights: each only if 99 % of its masks have IoU
    0.99 with the exact one's, on generated scenes. The folder appears whole or not at all.
    """
    if (version is None) == (checkpoint is None):
        raise BadInput("name a version that `models list` shows, or give --checkpoint FILE")
    with _weights(version, checkpoint, dataset, home) as weights, _appearing(out.resolve()) as draft:
        sam = _loaded(weights)
        left_out = _write(sam, draft, decoder_only, prompts)
        told = _described(sam, draft, version or weights.name, _sha256(weights), left_out)
        (draft / "onnx.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    if as_json:
        print_json({"folder": str(out)} | told)
        return
    files = ", ".join(f"{one['file']} ({one['n_bytes'] / 1e6:.1f} MB)" for one in told["files"])
    print(f"{files} and onnx.json are in {out}")


@contextmanager
def _weights(
    version: str | None, checkpoint: Path | None, dataset: str | None, home: Path | None
) -> Iterator[Path]:
    """The file of the weights; a checkpoint needs neither home nor database."""
    if checkpoint is not None:
        yield checkpoint
        return
    from engine.pipeline.promote import version_named

    with opened(home) as workspace:
        with workspace.read() as session:
            found = version_named(session, dataset_meant(session, dataset).id, str(version))
        yield workspace.blobs.local_path(found.weights_sha256)


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A draft beside `folder`, which takes its place when all went well."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists and is not empty: name a new folder")
    # Made before minutes of work, so that a folder nobody may write to is said at once.
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    draft.mkdir(parents=True)
    try:
        yield draft
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _loaded(weights: Path) -> Sam:
    from engine.modeling.checkpoint import load_state
    from engine.modeling.conversion import read_checkpoint
    from engine.modeling.registry import build_sam

    found = read_checkpoint(weights)
    sam = build_sam(found.config)
    load_state(sam, found.state, str(weights))
    return sam


def _write(sam: Sam, draft: Path, decoder_only: bool, n_prompts: int) -> list[str]:
    """Writes the ONNX files; returns a sentence for each smaller decoder that is not among them."""
    from engine.modeling.onnx import SMALLER, export_decoder, with_smaller_weights
    from engine.modeling.onnx_encoder import export_encoder

    if not decoder_only:
        say("exporting the image encoder, and comparing it with torch")
        (draft / "encoder.onnx").write_bytes(export_encoder(sam))
    say("exporting the decoder, and comparing it with torch")
    exact = export_decoder(sam)
    (draft / "decoder.onnx").write_bytes(exact)
    smaller = {kind: with_smaller_weights(exact, kind) for kind in SMALLER}
    left_out = []
    for kind, found in _fidelities(sam, exact, smaller, n_prompts).items():
        if found.ships:
            (draft / f"decoder.{kind}.onnx").write_bytes(smaller[kind])
        else:
            left_out.append(
                f"no decoder.{kind}.onnx: its masks have IoU 0.99 with the exact decoder's on "
                f"{found.share:.1%} of {len(found.ious)} prompts, and 99 % are asked for"
            )
            say(left_out[-1])
    return left_out


def _fidelities(sam: Sam, exact: bytes, smaller: dict[str, bytes], n_prompts: int) -> dict[str, Fidelity]:
    """How each smaller decoder's masks compare, on objects of generated scenes."""
    from engine.modeling.onnx_fidelity import Fidelity, compare
    from engine.modeling.onnx_predictor import DecoderSession
    from engine.modeling.predictor import encode_image
    from engine.pipeline.evaluate import generated_scenes

    n_masks = -(-n_prompts // _PROMPTS_PER_MASK)
    scenes = generated_scenes(-(-n_masks // _MASKS_PER_SCENE) + 1, n_masks, seed=0)
    session = DecoderSession(exact, sam.config)
    found = {kind: (DecoderSession(model, sam.config), Fidelity()) for kind, model in smaller.items()}
    with progress_of("comparing smaller decoders") as tell:
        for n_done, scene in enumerate(scenes, start=1):
            masks = [scene.mask(number) for number in range(len(scene.masks))]
            compare(session, found.values(), encode_image(sam, scene.image), masks, n_done)
            tell(n_done, len(scenes))
    return {kind: fidelity for kind, (_, fidelity) in found.items()}


def _described(sam: Sam, draft: Path, source: str, source_sha256: str, left_out: list[str]) -> dict[str, Any]:
    """onnx.json: where the files come from, their names, inputs, outputs, sizes and digests."""
    from engine.modeling.onnx_predictor import loaded, tensors_of

    files = []
    for path in sorted(draft.glob("*.onnx")):
        digest = {"file": path.name, "n_bytes": path.stat().st_size, "sha256": _sha256(path)}
        inputs, outputs = tensors_of(loaded(path.read_bytes(), 1, path.stem))
        files.append(digest | {"inputs": list(map(asdict, inputs)), "outputs": list(map(asdict, outputs))})
    origin = {"format": "maskloop-onnx-1", "source": source, "source_sha256": source_sha256}
    return origin | {"config": sam.config.to_dict(), "files": files, "left_out": left_out}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
