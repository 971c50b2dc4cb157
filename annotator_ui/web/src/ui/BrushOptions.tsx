import type { ReactElement } from "react";

import { actionById } from "../core/actions";
import { isPaintTool } from "../core/store";
import { MAX_SIZE_PX } from "../core/strokes";
import type { IconName } from "./icons";
import { Icon } from "./icons";
import { sayKeys } from "./keys";
import { useLabel } from "./label_context";

/** The slider goes by the size's logarithm: the small sizes are those that are chosen with care. */
const SLIDER_STEPS = 100;

/** Beside the paint tools: how large the brush is, and what can be done to the mask at once. */
export function BrushOptions(): ReactElement | null {
  const [tool] = useLabel((state) => state.tool);
  if (!isPaintTool(tool)) return null;
  return (
    <section className="brush-options" aria-label="Brush">
      {tool !== "lasso" && <BrushSize />}
      <div className="row">
        <Change id="fill-holes" icon="holes" text="Fill holes" />
        <Change id="remove-specks" icon="specks" text="Remove specks" />
      </div>
    </section>
  );
}

function BrushSize(): ReactElement {
  const [size, session] = useLabel((state) => state.brushSize);
  const place = Math.round((SLIDER_STEPS * Math.log(size)) / Math.log(MAX_SIZE_PX));
  return (
    <label title="Brush size ([ and ], or Alt+wheel)">
      <span>Size</span>
      <input type="range" min={0} max={SLIDER_STEPS} value={place} aria-label="Brush size" aria-valuetext={`${size} pixels`}
        onChange={(event) => session.looks.setBrushSize(MAX_SIZE_PX ** (Number(event.target.value) / SLIDER_STEPS))} />
      <output>{size} px</output>
    </label>
  );
}

function Change({ id, icon, text }: { id: string; icon: IconName; text: string }): ReactElement {
  const action = actionById(id);
  const [isPossible, session] = useLabel((state) => action.when?.(state) ?? true);
  return (
    <button type="button" className="button" disabled={!isPossible} title={`${action.label} (${sayKeys(action.keys)})`}
      onPointerDown={(event) => event.preventDefault()} onClick={() => action.run(session)}>
      <Icon name={icon} size={16} />{text}
    </button>
  );
}
