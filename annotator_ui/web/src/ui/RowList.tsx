import { type ReactElement, useEffect, useRef, useState } from "react";

import { useLabel } from "./label_context";

const ROW_PX = 40;
const OVERSCAN_ROWS = 6;

interface RowListProps<T> {
  label: string;
  rows: readonly T[];
  children: (row: T, index: number, topPx: number) => ReactElement;
}

/** Only the rows in sight exist, so that two thousand masks scroll as easily as ten; the selected one comes into view. */
export function RowList<T extends { readonly localId: string }>({ label, rows, children }: RowListProps<T>): ReactElement {
  const [top, setTop] = useState(0);
  const list = useRef<HTMLDivElement>(null);
  const [selectedId] = useLabel((state) => state.selectedId);
  useEffect(() => {
    const index = rows.findIndex((row) => row.localId === selectedId);
    if (list.current && index >= 0) bringIntoView(list.current, index * ROW_PX);
  }, [selectedId, rows]);
  const first = Math.max(Math.floor(top / ROW_PX) - OVERSCAN_ROWS, 0);
  const last = Math.min(Math.ceil((top + window.innerHeight) / ROW_PX) + OVERSCAN_ROWS, rows.length);
  return (
    <div className="mask-list" role="listbox" aria-label={label} tabIndex={0}
      ref={list}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}>
      <div className="mask-rows" style={{ height: rows.length * ROW_PX }}>
        {rows.slice(first, last).map((row, i) => children(row, first + i, (first + i) * ROW_PX))}
      </div>
    </div>
  );
}

function bringIntoView(list: HTMLElement, rowTop: number): void {
  const { scrollTop, clientHeight } = list;
  if (rowTop < scrollTop) list.scrollTop = rowTop;
  else if (rowTop + ROW_PX > scrollTop + clientHeight) list.scrollTop = rowTop + ROW_PX - clientHeight;
}
