import type { ReactElement } from "react";

import { actionById } from "../core/actions";
import type { IconName } from "./icons";
import { sayKeys } from "./keys";
import { useLabel } from "./label_context";
import { ToolButton } from "./parts";

/** A button that does what an entry of the action table does, greyed out when it makes no sense. */
export function ActionButton({ id, icon, isOn }: { id: string; icon: IconName; isOn?: boolean }): ReactElement {
  const action = actionById(id);
  const [isPossible, session] = useLabel((state) => action.when?.(state) ?? true);
  return (
    <ToolButton
      icon={icon}
      label={action.label}
      keys={sayKeys(action.keys)}
      disabled={!isPossible}
      aria-pressed={isOn}
      onClick={() => action.run(session)}
    />
  );
}
