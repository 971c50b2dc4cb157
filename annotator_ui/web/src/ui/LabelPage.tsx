import { type ReactElement, useEffect, useState } from "react";

import { LabelSession } from "../core/session";
import { CanvasPane } from "./CanvasPane";
import { KeySheet } from "./KeySheet";
import { ObjectPanel } from "./ObjectPanel";
import { SignInForm } from "./SignInForm";
import { StatusLine } from "./StatusLine";
import { Toasts } from "./Toasts";
import { ToolStrip } from "./ToolStrip";
import { TopBar } from "./TopBar";
import { api, useSetMe } from "./account";
import { LabelContext, useLabel } from "./label_context";

export function LabelPage({ dataset }: { dataset: string }): ReactElement {
  const [session] = useState(() => new LabelSession(api, dataset));
  useEffect(() => {
    session.start();
    return () => session.stop();
  }, [session]);
  return (
    <LabelContext value={session}>
      <div className="label-page">
        <TopBar />
        <ToolStrip />
        <CanvasPane />
        <ObjectPanel />
        <StatusLine />
        <Overlays />
        <Toasts />
      </div>
    </LabelContext>
  );
}

function Overlays(): ReactElement {
  const [isHelpOpen, session] = useLabel((state) => state.isHelpOpen);
  const [isSignedOut] = useLabel((state) => state.isSignedOut);
  return (
    <>
      {isHelpOpen && <KeySheet onClose={() => session.panels.toggleHelp(false)} />}
      {isSignedOut && <SignInAgain />}
    </>
  );
}

/** The session has run out: sign in over the canvas, and nothing that waits to be saved is lost. */
function SignInAgain(): ReactElement {
  const [, session] = useLabel(() => null);
  const setMe = useSetMe();
  return (
    <div className="veil">
      <section className="card dialog" role="dialog" aria-modal="true" aria-labelledby="again-title">
        <h2 id="again-title">Sign in again</h2>
        <p className="muted">Your session has ended. Your work is kept on this page and saved after signing in.</p>
        <SignInForm
          onDone={(signedIn) => {
            setMe(signedIn);
            session.signedInAgain();
          }}
        />
      </section>
    </div>
  );
}
