import type { ReactElement } from "react";

import { sayCounts } from "../core/review";
import { type Tool, saveStateOf } from "../core/store";
import { useLabel } from "./label_context";

export function StatusLine(): ReactElement {
  return (
    <footer className="status-line">
      <Zoom />
      <Coordinates />
      <ToolSentence />
      <span className="grow" />
      <Reviewed />
      <Model />
      <SaveState />
    </footer>
  );
}

function Zoom(): ReactElement {
  const [scale] = useLabel((state) => state.view.scale);
  const percent = scale * 100;
  return <span title="Zoom">{percent < 10 ? percent.toFixed(1) : Math.round(percent)} %</span>;
}

function Coordinates(): ReactElement {
  const [text] = useLabel(({ pointer, image }) => {
    if (!pointer || !image) return "";
    const [x, y] = [Math.floor(pointer.x), Math.floor(pointer.y)];
    return x >= 0 && y >= 0 && x < image.width && y < image.height ? `x ${x}  y ${y}` : "";
  });
  const [size] = useLabel(({ image }) => (image ? `${image.width} × ${image.height}` : ""));
  return <><span className="muted">{size}</span><span className="coordinates">{text}</span></>;
}

/** What the tool in hand does. */
const TOOL_SAYS: Readonly<Record<Tool, string>> = {
  prompt: "Click an object. Right click says “not this”. Drag a box.",
  select: "Click a mask to select it.",
  pan: "Drag the image.",
  brush: "Paint what belongs to the mask. Shift or right button takes away.",
  erase: "Paint over what does not belong to the mask.",
  lasso: "Draw around what to add. Shift or right button takes away.",
};

function ToolSentence(): ReactElement {
  const [tool] = useLabel((state) => state.tool);
  return <span className="tool-sentence muted" data-testid="tool-sentence">{TOOL_SAYS[tool]}</span>;
}

/** What submitting makes of the prefilled masks. */
function Reviewed(): ReactElement | null {
  const [text] = useLabel((state) => sayCounts(state.proposals));
  return text === null ? null : <span title="Prefilled masks when you submit" data-testid="reviewed">{text}</span>;
}

function Model(): ReactElement {
  const [name] = useLabel((state) => state.assignment?.model.name ?? state.dataset?.model?.name);
  const [isReady] = useLabel((state) => state.assignment?.embedding_ready ?? true);
  const [latencyMs] = useLabel((state) => state.latencyMs);
  return (
    <>
      {!isReady && <span className="muted">image still being prepared</span>}
      {name !== undefined && <span title="Model version">{name}</span>}
      <span className="latency" title="Time from click to mask">{latencyMs === null ? "" : `${latencyMs} ms`}</span>
    </>
  );
}

const SAYS = { saved: "saved", saving: "saving…", unsaved: "not saved" } as const;

function SaveState(): ReactElement {
  const [state, session] = useLabel(saveStateOf);
  const [nPending] = useLabel(({ outbox }) => outbox.nPending);
  return (
    <span className="save-state" role="status" data-state={state} data-testid="save-state">
      {SAYS[state]}
      {state !== "saved" && nPending > 0 && ` (${nPending})`}
      {state === "unsaved" && nPending > 0 && (
        <button type="button" className="link" onClick={() => session.retrySaving()}>try again</button>
      )}
    </span>
  );
}
