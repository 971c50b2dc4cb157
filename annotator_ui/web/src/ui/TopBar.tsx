import type { ReactElement } from "react";

import { ActionButton } from "./ActionButton";
import { Icon, Logo } from "./icons";
import { sayKey } from "./keys";
import { useLabel } from "./label_context";
import { formatNumber } from "./parts";
import { Link } from "./router";
import { SkipPopover } from "./SkipPopover";
import { StageGuide } from "./StageGuide";

export function TopBar(): ReactElement {
  const [, session] = useLabel(() => null);
  return (
    <header className="top-bar">
      <Link to={{ page: "datasets" }} className="brand" aria-label="All datasets" title="All datasets"><Logo /></Link>
      <div className="top-title">
        <strong>{session.datasetName}</strong>
        <StageGuide />
        <Position />
      </div>
      <div className="row top-middle">
        <ActionButton id="undo" icon="undo" />
        <ActionButton id="redo" icon="redo" />
      </div>
      <div className="row header-end">
        <Link className="button" to={{ page: "progress", dataset: session.datasetName }}>
          <Icon name="chart" size={16} />Progress
        </Link>
        <SkipPopover />
        <SubmitButton />
      </div>
    </header>
  );
}

function Position(): ReactElement | null {
  const [assignment] = useLabel((state) => state.assignment);
  if (!assignment) return null;
  const { position, total } = assignment.order;
  return (
    <span className="muted">
      image <b>{formatNumber(position)}</b> of {formatNumber(total)}
      <span className="file-name" title={assignment.image.name}>{assignment.image.name}</span>
    </span>
  );
}

function SubmitButton(): ReactElement {
  const [isSubmitting, session] = useLabel((state) => state.isSubmitting);
  const [isReady] = useLabel((state) => state.phase === "ready");
  return (
    <button type="button" className="button primary" disabled={!isReady || isSubmitting}
      title={`Submit the image and open the next (${sayKey("Ctrl+Enter")})`}
      onPointerDown={(event) => event.preventDefault()} onClick={() => void session.submit()}>
      <Icon name="check" size={16} />{isSubmitting ? "Submitting…" : "Submit"}
      <kbd>{sayKey("Ctrl+Enter")}</kbd>
    </button>
  );
}
