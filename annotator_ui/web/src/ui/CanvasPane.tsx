import { type ReactElement, useEffect, useRef } from "react";

import { isBegun } from "../core/draft";
import { Input } from "../core/input";
import { Stage } from "../core/render/stage";
import { selectedProposal } from "../core/selection";
import { BrushOptions } from "./BrushOptions";
import { useLabel } from "./label_context";
import { Link } from "./router";

export function CanvasPane(): ReactElement {
  const image = useRef<HTMLCanvasElement>(null);
  const prefilled = useRef<HTMLCanvasElement>(null);
  const masks = useRef<HTMLCanvasElement>(null);
  const live = useRef<HTMLCanvasElement>(null);
  const cursor = useRef<HTMLCanvasElement>(null);
  const [tool, session] = useLabel((state) => state.tool);

  useEffect(() => {
    if (!image.current || !prefilled.current || !masks.current || !live.current || !cursor.current) return;
    const layers = {
      image: image.current, prefilled: prefilled.current, masks: masks.current, live: live.current, cursor: cursor.current,
    };
    const stage = new Stage(session, layers);
    const input = new Input(session, stage, live.current);
    session.looks.attach(stage);
    return () => {
      session.looks.attach(null);
      input.stop();
      stage.stop();
    };
  }, [session]);

  return (
    <main className="canvas-pane">
      <canvas ref={image} aria-hidden="true" />
      <canvas ref={prefilled} aria-hidden="true" />
      <canvas ref={masks} aria-hidden="true" />
      <canvas ref={live} data-testid="canvas" data-tool={tool} role="application"
        aria-label="The image. Click an object for its mask; press ? for all keys." />
      <canvas ref={cursor} className="cursor" aria-hidden="true" />
      <BrushOptions />
      <CandidateChip />
      <ProposalChip />
      <PhaseNotice />
    </main>
  );
}

/** Which of the candidates is shown, how sure the model is of it, and how many strokes lie over it. */
function CandidateChip(): ReactElement | null {
  const [shown] = useLabel((state) => state.shown);
  const [draft] = useLabel((state) => state.draft);
  const [isPredicting] = useLabel((state) => state.isPredicting);
  if (!isBegun(draft) && !isPredicting) return null;
  const [n, nStrokes] = [shown?.prediction.candidates.length ?? 0, draft.strokes.length];
  return (
    <div className="candidate-chip" role="status" data-busy={isPredicting}>
      {shown === null && draft.prompts.length > 0 ? "predicting…" : (
        <>
          {shown && n > 1 && <><b>{shown.choice + 1}/{n}</b><kbd>M</kbd> next </>}
          {shown && <span>IoU {shown.candidate.predicted_iou.toFixed(2)}</span>}
          {draft.supersedes !== null && <span>Correction</span>}
          {nStrokes > 0 && <span>{nStrokes === 1 ? "1 stroke" : `${nStrokes} strokes`}</span>}
          <kbd>N</kbd> accept
        </>
      )}
    </div>
  );
}

/** What can be done with the prefilled mask that is selected. */
function ProposalChip(): ReactElement | null {
  const [proposal] = useLabel((state) => (isBegun(state.draft) ? null : selectedProposal(state)));
  if (!proposal) return null;
  return (
    <div className="candidate-chip" role="status">
      <span>Prefilled, score {proposal.score.toFixed(2)}</span>
      <kbd>Click</kbd> or <kbd>N</kbd> correct <kbd>Del</kbd> reject
    </div>
  );
}

function PhaseNotice(): ReactElement | null {
  const [phase, session] = useLabel((state) => state.phase);
  const [reason] = useLabel((state) => state.reason);
  const [stage] = useLabel((state) => state.dataset?.open_stage ?? null);
  if (phase === "ready") return null;
  if (phase === "loading") return <div className="phase" role="status"><span className="spinner" />Opening the image…</div>;
  return (
    <div className="phase" role="status">
      <h2>{phase === "failed" ? "The image could not be opened" : titleWithout(stage)}</h2>
      <p className="phase-reason">{reason}</p>
      <div className="row">
        <button type="button" className="button" onClick={() => void session.next()}>Try again</button>
        <Link className="button primary" to={{ page: "progress", dataset: session.datasetName }}>See the progress</Link>
      </div>
    </div>
  );
}

/** There is no image to label: in stage 3 on purpose. */
function titleWithout(stage: string | null): string {
  return stage === "fully_automatic" ? "The model works by itself now" : "Nothing to label right now";
}
