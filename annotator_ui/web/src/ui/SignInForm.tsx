import { type SubmitEvent, type ReactElement, useState } from "react";

import type { SignedIn } from "../api/types";
import { api } from "./account";

/** Name and password; used as a page and over the canvas when a session has run out. */
export function SignInForm({ onDone }: { onDone: (signedIn: SignedIn) => void }): ReactElement {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);

  async function submit(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      onDone(await api.signIn(name, password));
    } catch (problem) {
      setError(problem instanceof Error ? problem.message : String(problem));
      setBusy(false);
    }
  }

  return (
    <form className="sign-in-form" onSubmit={(event) => void submit(event)}>
      <label>
        Name
        <input name="username" autoComplete="username" required autoFocus value={name}
          onChange={(event) => setName(event.target.value)} />
      </label>
      <label>
        Password
        <input name="password" type="password" autoComplete="current-password" required value={password}
          onChange={(event) => setPassword(event.target.value)} />
      </label>
      {error && <p role="alert" className="form-error">{error}</p>}
      <button type="submit" className="primary" disabled={isBusy}>{isBusy ? "Signing in…" : "Sign in"}</button>
    </form>
  );
}
