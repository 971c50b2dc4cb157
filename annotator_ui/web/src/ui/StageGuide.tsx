import type { ReactElement } from "react";

import { Icon } from "./icons";
import { useLabel } from "./label_context";
import { sayStage } from "./parts";

const TASKS: Readonly<Record<string, string>> = {
  assisted_manual: "Click every object you see, the most prominent first, and accept its mask.",
  semi_automatic: "The hatched masks were drawn by the model. Reject the wrong ones, correct the poor ones, and add what is "
    + "missing. Submitting keeps the rest.",
  fully_automatic: "The model draws and keeps masks by itself. There is nothing for people to do.",
};

/** The stage, and on asking what to do in it, with the dataset's own guideline. */
export function StageGuide(): ReactElement {
  const [isOpen, session] = useLabel((state) => state.isGuideOpen);
  const [stage] = useLabel((state) => state.assignment?.stage ?? state.dataset?.open_stage ?? null);
  const [guideline] = useLabel((state) => state.dataset?.guideline ?? "");
  return (
    <div className="anchor">
      <button type="button" className="badge badge-on stage-badge" aria-expanded={isOpen} aria-haspopup="dialog"
        title="What to do in this stage (I)" onPointerDown={(event) => event.preventDefault()}
        onClick={() => session.panels.toggleGuide()}>
        {sayStage(stage)}<Icon name="help" size={13} />
      </button>
      {isOpen && (
        <div className="card popover guide" role="dialog" aria-label="What to do in this stage">
          <p>{TASKS[stage ?? ""] ?? "No stage is open: a researcher opens one."}</p>
          {guideline !== "" && <><h3>Guideline of this dataset</h3><p className="guideline">{guideline}</p></>}
        </div>
      )}
    </div>
  );
}
