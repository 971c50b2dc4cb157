import { type ReactElement, useEffect, useRef } from "react";

import { ACTIONS, type Action, MOUSE_HABITS } from "../core/actions";
import { sayKey } from "./keys";
import { ToolButton } from "./parts";

const GROUPS: readonly Action["group"][] = ["Prompt", "Brush", "Masks", "Prefilled", "Image", "View"];

/** All keys, made from the action table itself; it prints well. */
export function KeySheet({ onClose }: { onClose: () => void }): ReactElement {
  const sheet = useRef<HTMLElement>(null);
  useEffect(() => sheet.current?.focus(), []);
  return (
    <div className="veil" onClick={onClose}>
      <section ref={sheet} className="card dialog key-sheet" role="dialog" aria-modal="true" aria-labelledby="keys-title"
        tabIndex={-1} onClick={(event) => event.stopPropagation()}>
        <header className="row">
          <h2 id="keys-title" className="grow">Keys and mouse</h2>
          <ToolButton icon="close" label="Close" keys="Esc" onClick={onClose} />
        </header>
        <div className="key-groups">
          {GROUPS.map((group) => <Group key={group} name={group} />)}
          <MouseGroup />
        </div>
      </section>
    </div>
  );
}

function Group({ name }: { name: Action["group"] }): ReactElement {
  return (
    <section>
      <h3>{name}</h3>
      <dl>
        {ACTIONS.filter((action) => action.group === name).map((action) => (
          <div key={action.id}>
            <dt>{action.keys.map((key) => <kbd key={key}>{sayKey(key)}</kbd>)}</dt>
            <dd>{action.label}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function MouseGroup(): ReactElement {
  return (
    <section>
      <h3>Mouse and digits</h3>
      <dl>
        {MOUSE_HABITS.map(([habit, effect]) => (
          <div key={habit}><dt>{habit}</dt><dd>{effect}</dd></div>
        ))}
      </dl>
    </section>
  );
}
