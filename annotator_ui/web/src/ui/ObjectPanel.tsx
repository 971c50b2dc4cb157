import { type ReactElement, useEffect, useMemo, useRef, useState } from "react";

import type { Category } from "../api/types";
import type { LocalMask } from "../core/commands";
import { css, maskColour } from "../core/palette";
import { CandidateList } from "./CandidateList";
import { Icon } from "./icons";
import { useLabel } from "./label_context";
import { formatNumber } from "./parts";

const ROW_PX = 40;
const OVERSCAN_ROWS = 6;

export function ObjectPanel(): ReactElement {
  const [nMasks] = useLabel((state) => state.masks.length);
  return (
    <aside className="object-panel" aria-label="Objects">
      <CandidateList />
      <Categories />
      <h2 className="panel-title">Masks <span className="count" data-testid="mask-count">{formatNumber(nMasks)}</span></h2>
      {nMasks === 0 ? <FirstSteps /> : <MaskList />}
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

/** Only the rows in sight exist, so that two thousand masks scroll as easily as ten. */
function MaskList(): ReactElement {
  const [masks] = useLabel((state) => state.masks);
  const [top, setTop] = useState(0);
  const newestFirst = useMemo(() => masks.toReversed(), [masks]);
  const list = useRef<HTMLDivElement>(null);
  const [selectedId] = useLabel((state) => state.selectedId);
  useEffect(() => {
    const index = newestFirst.findIndex((mask) => mask.localId === selectedId);
    if (list.current && index >= 0) bringIntoView(list.current, index * ROW_PX);
  }, [selectedId, newestFirst]);
  const first = Math.max(Math.floor(top / ROW_PX) - OVERSCAN_ROWS, 0);
  const last = Math.min(Math.ceil((top + window.innerHeight) / ROW_PX) + OVERSCAN_ROWS, newestFirst.length);
  return (
    <div className="mask-list" role="listbox" aria-label="Accepted masks" tabIndex={0}
      ref={list}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}>
      <div className="mask-rows" style={{ height: newestFirst.length * ROW_PX }}>
        {newestFirst.slice(first, last).map((mask, i) => (
          <MaskRow key={mask.localId} mask={mask} number={newestFirst.length - first - i} top={(first + i) * ROW_PX} />
        ))}
      </div>
    </div>
  );
}

function bringIntoView(list: HTMLElement, rowTop: number): void {
  const { scrollTop, clientHeight } = list;
  if (rowTop < scrollTop) list.scrollTop = rowTop;
  else if (rowTop + ROW_PX > scrollTop + clientHeight) list.scrollTop = rowTop + ROW_PX - clientHeight;
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
