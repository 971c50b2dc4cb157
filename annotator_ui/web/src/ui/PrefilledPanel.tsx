import { type ReactElement, useMemo } from "react";

import { actionById } from "../core/actions";
import { type LocalProposal, countsOf, idsBelow, isBelow } from "../core/proposals";
import { RowList } from "./RowList";
import { sayKey } from "./keys";
import { useLabel } from "./label_context";
import { formatNumber, formatPercent } from "./parts";

const SLIDER_STEP = 0.01;

/** What the model drew beforehand: the score slider, rejecting in one go, and each mask by its score. */
export function PrefilledPanel(): ReactElement | null {
  const [proposals] = useLabel((state) => state.proposals);
  const listed = useMemo(() => inListOrder(proposals), [proposals]);
  if (proposals.length === 0) return null;
  return (
    <section className="prefilled" aria-label="Prefilled masks">
      <h2 className="panel-title">
        Prefilled <span className="count" data-testid="prefilled-count">{formatNumber(countsOf(proposals).kept)}</span>
      </h2>
      <ScoreSlider />
      {listed.length > 0 && (
        <RowList label="Prefilled masks" rows={listed}>
          {(proposal, _, top) => <ProposalRow key={proposal.localId} proposal={proposal} top={top} />}
        </RowList>
      )}
    </section>
  );
}

/** Best score first, and what was rejected at the end; a corrected one stands among the masks. */
function inListOrder(proposals: readonly LocalProposal[]): LocalProposal[] {
  const inState = (state: LocalProposal["state"]): LocalProposal[] => proposals.filter((one) => one.state === state);
  return [...inState("open"), ...inState("rejected")];
}

function ScoreSlider(): ReactElement {
  const [cutoff, session] = useLabel((state) => state.cutoff);
  const [nBelow] = useLabel((state) => idsBelow(state.proposals, state.cutoff, state.draft).length);
  const [expectedWrong] = useLabel((state) => state.assignment?.prefill?.false_prefill_rate ?? null);
  const reject = actionById("reject-below");
  const [isPossible] = useLabel((state) => reject.when?.(state) ?? true);
  return (
    <div className="score-slider">
      <label title={expectedWrong === null ? undefined : `The detector is set for about ${formatPercent(expectedWrong)} wrong ones`}>
        <span>Score from</span>
        <input type="range" min={session.review.lowest} max={1} step={SLIDER_STEP} value={cutoff}
          aria-label="Lowest score kept" onChange={(event) => session.review.setCutoff(Number(event.target.value))} />
        <output>{cutoff.toFixed(2)}</output>
      </label>
      <button type="button" className="button" disabled={!isPossible} title={`${reject.label} (${sayKey("Shift+Delete")})`}
        onPointerDown={(event) => event.preventDefault()} onClick={() => reject.run(session)}>
        Reject all below <span className="count">{formatNumber(nBelow)}</span>
      </button>
    </div>
  );
}

function ProposalRow({ proposal, top }: { proposal: LocalProposal; top: number }): ReactElement {
  const [isSelected, session] = useLabel((state) => state.selectedId === proposal.localId);
  const [isFaded] = useLabel((state) => isBelow(proposal, state.cutoff));
  const isRejected = proposal.state === "rejected";
  return (
    <div className="mask-row proposal-row" role="option" aria-selected={isSelected} style={{ top }}
      data-state={proposal.state} data-faded={isFaded} onPointerDown={(event) => event.preventDefault()}
      onClick={() => !isRejected && session.select(isSelected ? null : proposal.localId)}>
      <span className="swatch hatched" />
      <span className="mask-name">{isRejected ? "Rejected" : "Prefilled"}</span>
      {isRejected ? <BringBack proposal={proposal} /> : (
        <span className="muted" title="Area in pixels">{formatNumber(proposal.area)} px</span>
      )}
      <span className="score" title="Score of the detector">{proposal.score.toFixed(2)}</span>
    </div>
  );
}

function BringBack({ proposal }: { proposal: LocalProposal }): ReactElement {
  const [, session] = useLabel(() => null);
  return (
    <button type="button" className="link" onPointerDown={(event) => event.preventDefault()}
      onClick={() => session.review.bringBack([proposal.id])}>
      bring back
    </button>
  );
}
