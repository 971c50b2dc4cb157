import { type ReactElement, useMemo } from "react";

import type { Category } from "../api/types";
import type { LocalMask } from "../core/commands";
import { css, maskColour } from "../core/palette";
import { CandidateList } from "./CandidateList";
import { PrefilledPanel } from "./PrefilledPanel";
import { RowList } from "./RowList";
import { Icon } from "./icons";
import { useLabel } from "./label_context";
import { formatNumber } from "./parts";

export function ObjectPanel(): ReactElement {
  const [nMasks] = useLabel((state) => state.masks.length);
  const [isPrefilled] = useLabel((state) => state.proposals.length > 0);
  return (
    <aside className="object-panel" aria-label="Objects">
      <CandidateList />
      <Categories />
      <PrefilledPanel />
      <h2 className="panel-title">{isPrefilled ? "Drawn here" : "Masks"} <span className="count" data-testid="mask-count">{formatNumber(nMasks)}</span></h2>
      {nMasks > 0 ? <MaskList /> : isPrefilled ? <AddWhatIsMissing /> : <FirstSteps />}
    </aside>
  );
}

function FirstSteps(): ReactElement {
  return (
    <ol className="first-steps">
      <li><b>Click</b> an object: its mask appears.</li>
      <li><kbd>M</kbd> shows the other two readings; more clicks refine. <b>Right click</b> says “not this”.</li>
      <li><kbd>N</kbd> accepts it. Go on with the next object.</li>
    </ol>
  );
}

function AddWhatIsMissing(): ReactElement {
  return (
    <ol className="first-steps">
      <li><b>Reject</b> what is wrong: <kbd>.</kbd> steps through, <kbd>Del</kbd> rejects.</li>
      <li><b>Correct</b> what is nearly right: select it, then click.</li>
      <li><b>Add</b> what is missing: click it, <kbd>N</kbd> accepts. Submit keeps the rest.</li>
    </ol>
  );
}

function MaskList(): ReactElement {
  const [masks] = useLabel((state) => state.masks);
  const newestFirst = useMemo(() => masks.toReversed(), [masks]);
  return (
    <RowList label="Accepted masks" rows={newestFirst}>
      {(mask, index, top) => <MaskRow key={mask.localId} mask={mask} number={newestFirst.length - index} top={top} />}
    </RowList>
  );
}

function MaskRow({ mask, number, top }: { mask: LocalMask; number: number; top: number }): ReactElement {
  const [isSelected, session] = useLabel((state) => state.selectedId === mask.localId);
  const [refusal] = useLabel((state) => state.refusals.get(mask.localId));
  const [category] = useLabel((state) => state.dataset?.categories.find((one) => one.id === mask.categoryId)?.name);
  return (
    <div className="mask-row" role="option" aria-selected={isSelected} style={{ top }}
      onPointerDown={(event) => event.preventDefault()} onClick={() => session.select(isSelected ? null : mask.localId)}>
      <span className="swatch" style={{ backgroundColor: css(maskColour(mask.colour)) }} />
      <span className="mask-name">{category ?? `Mask ${number}`}</span>
      <span className="muted" title="Area in pixels">{formatNumber(mask.area)} px</span>
      {refusal === undefined ? <Score value={mask.predictedIou} /> : (
        <button type="button" className="tool small warn" title={`Not saved: ${refusal} Click to save again.`}
          aria-label={`Not saved: ${refusal} Save again.`}
          onClick={(event) => {
            event.stopPropagation();
            session.saveAgain(mask);
          }}>
          <Icon name="retry" size={14} />
        </button>
      )}
    </div>
  );
}

function Score({ value }: { value: number | null }): ReactElement {
  return <span className="score" title="Predicted IoU">{value === null ? "–" : value.toFixed(2)}</span>;
}

/** The class that the next masks get; kept from mask to mask, and never asked for. */
function Categories(): ReactElement | null {
  const [dataset, session] = useLabel((state) => state.dataset);
  const [categoryId] = useLabel((state) => state.categoryId);
  const live = dataset?.categories.filter((category) => !category.retired) ?? [];
  if (live.length === 0) return null;
  const toggle = (category: Category): void => session.setCategory(category.id === categoryId ? null : category.id);
  return (
    <section className="categories" aria-label="Class of the next masks">
      <h2 className="panel-title">Class</h2>
      <div className="chips">
        {live.map((category, i) => (
          <button key={category.id} type="button" className="chip" aria-pressed={category.id === categoryId}
            onPointerDown={(event) => event.preventDefault()} onClick={() => toggle(category)}>
            {i < 9 && <kbd>{i + 1}</kbd>}{category.name}
          </button>
        ))}
      </div>
    </section>
  );
}
