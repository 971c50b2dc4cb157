import type { ReactElement } from "react";

import type { Tool } from "../core/store";
import { ActionButton } from "./ActionButton";
import { useLabel } from "./label_context";
import { ToolButton } from "./parts";

export function ToolStrip(): ReactElement {
  const [tool] = useLabel((state) => state.tool);
  const [areMasksHidden] = useLabel((state) => state.areMasksHidden);
  return (
    <nav className="tool-strip" aria-label="Tools">
      <ActionButton id="prompt-tool" icon="prompt" isOn={tool === "prompt"} />
      <ActionButton id="select-tool" icon="select" isOn={tool === "select"} />
      <PanTool tool={tool} />
      <hr />
      <ActionButton id="brush-tool" icon="brush" isOn={tool === "brush"} />
      <ActionButton id="erase-tool" icon="eraser" isOn={tool === "erase"} />
      <ActionButton id="lasso-tool" icon="lasso" isOn={tool === "lasso"} />
      <hr />
      <ActionButton id="fit" icon="fit" />
      <ActionButton id="zoom-object" icon="object" />
      <ActionButton id="hide" icon={areMasksHidden ? "hidden" : "eye"} isOn={areMasksHidden} />
      <Opacity />
      <hr />
      <ActionButton id="delete" icon="trash" />
      <span className="grow" />
      <ActionButton id="help" icon="help" />
    </nav>
  );
}

/** The toggle twin of holding Space. */
function PanTool({ tool }: { tool: Tool }): ReactElement {
  const [, session] = useLabel(() => null);
  return (
    <ToolButton icon="pan" label="Hand tool: drag the image" keys="hold Space" aria-pressed={tool === "pan"}
      onClick={() => session.looks.setTool("pan")} />
  );
}

function Opacity(): ReactElement {
  const [opacity, session] = useLabel((state) => state.opacity);
  return (
    <input type="range" className="opacity" min={0} max={1} step={0.05} value={opacity} aria-label="Mask opacity"
      title="Mask opacity (Shift+[ and Shift+])" onChange={(event) => session.looks.setOpacity(Number(event.target.value))} />
  );
}
