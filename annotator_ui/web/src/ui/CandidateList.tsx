import { type ReactElement, useEffect, useRef } from "react";

import { type Shown, isSettled } from "../core/draft";
import { drawPreview, mapBox } from "../core/render/preview";
import { useLabel } from "./label_context";

/** The three readings of one click, to compare and choose from. */
export function CandidateList(): ReactElement {
  const [shown] = useLabel((state) => state.shown);
  const [isLive] = useLabel((state) => isSettled(state.draft, state.shown));
  return (
    <section className="candidates" aria-label="Candidates">
      <h2 className="panel-title">Candidate {shown && shown.prediction.candidates.length > 1 && <kbd>M</kbd>}</h2>
      <div className="previews" data-dim={!isLive}>
        {shown ? <Previews shown={shown} /> : <p className="muted empty">Click an object in the image.</p>}
      </div>
    </section>
  );
}

function Previews({ shown }: { shown: Shown }): ReactElement[] {
  return shown.prediction.candidates.map((_, i) => <Preview key={`${shown.key} ${i}`} shown={shown} index={i} />);
}

function Preview({ shown, index }: { shown: Shown; index: number }): ReactElement | null {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [image, session] = useLabel((state) => state.image);
  const candidate = shown.prediction.candidates[index];
  useEffect(() => {
    if (canvas.current && image && candidate) {
      drawPreview(canvas.current, image, candidate, mapBox(shown.prediction.candidates, image));
    }
  }, [image, candidate, shown.prediction]);
  if (!candidate) return null;
  return (
    <button type="button" className="preview" aria-pressed={index === shown.choice}
      aria-label={`Candidate ${index + 1}, predicted IoU ${candidate.predicted_iou.toFixed(2)}`}
      onPointerDown={(event) => event.preventDefault()} onClick={() => session.cycle(index)}>
      <canvas ref={canvas} width={176} height={176} />
      <span>{candidate.predicted_iou.toFixed(2)}</span>
    </button>
  );
}
