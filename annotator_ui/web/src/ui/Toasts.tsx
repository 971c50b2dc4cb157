import type { ReactElement } from "react";

import { useLabel } from "./label_context";
import { ToolButton } from "./parts";

export function Toasts(): ReactElement {
  const [toasts, session] = useLabel((state) => state.toasts);
  return (
    <div className="toasts" aria-live="polite">
      {toasts.map((toast) => (
        <div key={toast.id} className="toast" data-tone={toast.tone} role={toast.tone === "error" ? "alert" : "status"}>
          <span>{toast.text}</span>
          <ToolButton icon="close" label="Dismiss" onClick={() => session.toasts.dismiss(toast.id)} />
        </div>
      ))}
    </div>
  );
}
