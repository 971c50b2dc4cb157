import { type ReactElement, useEffect, useState } from "react";

import type { SignedIn } from "../api/types";
import { SignInForm } from "./SignInForm";
import { api, useSetMe } from "./account";
import { Logo } from "./icons";
import { Notice } from "./parts";
import { type Route, navigate, parseRoute } from "./router";

/** Where to go after signing in: on with what was asked for, else the first dataset with an open stage. */
async function destination(signedIn: SignedIn): Promise<Route> {
  const asked = parseRoute(location.pathname);
  if (asked.page !== "sign-in" && asked.page !== "datasets") return asked;
  if (signedIn.dataset) return { page: "label", dataset: signedIn.dataset };
  if (asked.page === "datasets") return asked;
  const open = (await api.datasets()).find((dataset) => dataset.open_stage !== null);
  return open ? { page: "label", dataset: open.name } : { page: "datasets" };
}

/** The token of a one-time link, taken out of the address so that it stays in no history. */
function takeToken(): string | null {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) history.replaceState(null, "", location.pathname);
  return token;
}

export function SignInPage(): ReactElement {
  const setMe = useSetMe();
  const [token] = useState(takeToken);
  const [linkError, setLinkError] = useState<string | null>(null);

  async function enter(signedIn: SignedIn): Promise<void> {
    const route = await destination(signedIn);
    setMe(signedIn);
    navigate(route, true);
  }

  useEffect(() => {
    if (token !== null) redeem(token).then(enter, (error: unknown) => setLinkError((error as Error).message));
    // The token is spent by its first use: this must run once, whatever else changes.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [token]);

  if (token !== null && linkError === null) return <Notice title="One moment">Signing you in…</Notice>;
  return (
    <main className="sign-in">
      <section className="card">
        <div className="sign-in-brand"><Logo /><h1>Maskloop</h1></div>
        <p className="muted">Click an object, get its mask, make the model better.</p>
        {linkError && <p role="alert" className="form-error">{linkError}</p>}
        <SignInForm onDone={(signedIn) => void enter(signedIn)} />
      </section>
    </main>
  );
}

/** Strict mode runs effects twice; the same link is still redeemed once. */
const redemptions = new Map<string, Promise<SignedIn>>();

function redeem(token: string): Promise<SignedIn> {
  const running = redemptions.get(token) ?? api.signInByLink(token);
  redemptions.set(token, running);
  return running;
}
