import { type SubmitEvent, type ReactElement, useState } from "react";

import { useLabel } from "./label_context";

const REASONS = ["Blurred or too dark", "Nothing to label", "Unsuitable picture", "Too difficult"];

export function SkipPopover(): ReactElement {
  const [isOpen, session] = useLabel((state) => state.isSkipOpen);
  const [isReady] = useLabel((state) => state.phase === "ready" && !state.isSubmitting);
  return (
    <div className="anchor">
      <button type="button" className="button" disabled={!isReady} aria-expanded={isOpen} aria-haspopup="dialog"
        title="Skip the image, with a reason (S)" onPointerDown={(event) => event.preventDefault()}
        onClick={() => session.panels.toggleSkip()}>
        Skip
      </button>
      {isOpen && <Reasons onChoose={(reason) => void session.skip(reason)} onClose={() => session.panels.toggleSkip(false)} />}
    </div>
  );
}

interface ReasonsProps {
  onChoose: (reason: string) => void;
  onClose: () => void;
}

function Reasons({ onChoose, onClose }: ReasonsProps): ReactElement {
  const [text, setText] = useState("");
  const send = (event: SubmitEvent): void => {
    event.preventDefault();
    if (text.trim()) onChoose(text.trim());
  };
  return (
    <div className="card popover" role="dialog" aria-label="Why skip this image?"
      onKeyDown={(event) => event.key === "Escape" && onClose()}>
      <p className="popover-title">Why skip this image?</p>
      {REASONS.map((reason, i) => (
        <button key={reason} type="button" className="menu-entry" autoFocus={i === 0} onClick={() => onChoose(reason)}>
          {reason}
        </button>
      ))}
      <form className="row" onSubmit={send}>
        <input aria-label="Another reason" placeholder="Another reason" maxLength={200} value={text}
          onChange={(event) => setText(event.target.value)} />
        <button type="submit" className="button" disabled={!text.trim()}>Skip</button>
      </form>
    </div>
  );
}
