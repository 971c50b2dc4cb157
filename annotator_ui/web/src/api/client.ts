import type {
  AcceptBody,
  Assignment,
  Dataset,
  DatasetDetail,
  Mask,
  NewSchedule,
  NextAssignment,
  Prediction,
  Progress,
  Prompt,
  ReviewBody,
  Schedule,
  SignedIn,
} from "./types";

/** The server answered and said no; `message` is its sentence for people. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** Whether sending the same request again later may succeed. */
  get isTransient(): boolean {
    return this.status === 429 || this.status >= 500;
  }
}

/** No answer came back: the act may or may not have arrived, so it is sent again with the same client_id. */
export class NetworkError extends Error {
  constructor() {
    super("The server does not answer. Your work stays here and is sent again.");
    this.name = "NetworkError";
  }
}

/** True for the rejection of a request that the page itself gave up. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** The server's words begin in lower case, as a command line wants them; people read a sentence. */
export function asSentence(words: string): string {
  const text = words.charAt(0).toUpperCase() + words.slice(1);
  return /[.!?:]$/.test(text) ? text : `${text}.`;
}

async function readProblem(response: Response): Promise<ApiError> {
  const seconds = Number(response.headers.get("Retry-After") ?? Number.NaN);
  const retryAfterS = Number.isFinite(seconds) ? seconds : null;
  try {
    const problem = (await response.json()) as { detail?: string; title?: string };
    const sentence = problem.detail ?? problem.title ?? `The server answered ${response.status}.`;
    return new ApiError(response.status, asSentence(sentence), retryAfterS);
  } catch {
    return new ApiError(response.status, `The server answered ${response.status}.`, retryAfterS);
  }
}

/** One method per route; holds the CSRF token of the session, nothing else. */
export class ApiClient {
  private csrfToken = "";

  constructor(private readonly base = "/api/v1") {}

  async me(): Promise<SignedIn> {
    return this.keepToken(await this.call<SignedIn>("GET", "/me"));
  }

  async signIn(name: string, password: string): Promise<SignedIn> {
    return this.keepToken(await this.call<SignedIn>("POST", "/sign-in", { name, password }));
  }

  async signInByLink(token: string): Promise<SignedIn> {
    return this.keepToken(await this.call<SignedIn>("POST", "/sign-in-link", { token }));
  }

  signOut(): Promise<void> {
    return this.call("POST", "/sign-out", {});
  }

  changePassword(old: string, fresh: string): Promise<void> {
    return this.call("POST", "/me/password", { old, new: fresh });
  }

  async datasets(): Promise<Dataset[]> {
    return (await this.call<{ datasets: Dataset[] }>("GET", "/datasets")).datasets;
  }

  dataset(name: string): Promise<DatasetDetail> {
    return this.call("GET", `/datasets/${encodeURIComponent(name)}`);
  }

  nextAssignment(dataset: string): Promise<NextAssignment> {
    return this.call("POST", `/datasets/${encodeURIComponent(dataset)}/assignments`, {});
  }

  assignment(id: number): Promise<Assignment> {
    return this.call("GET", `/assignments/${id}`);
  }

  renew(id: number): Promise<{ lease_until: string }> {
    return this.call("POST", `/assignments/${id}/renew`, {});
  }

  /** `chosen` is one shorter than `prompts`: the choices in force before the last prompt. */
  predict(id: number, prompts: Prompt[], chosen: number[], signal: AbortSignal): Promise<Prediction> {
    return this.call("POST", `/assignments/${id}/predictions`, { prompts, chosen }, signal);
  }

  acceptMask(id: number, body: AcceptBody): Promise<Mask> {
    return this.call("POST", `/assignments/${id}/masks`, body);
  }

  deleteMask(id: number, clientId: string, maskId: number): Promise<{ mask_id: number }> {
    return this.call("POST", `/assignments/${id}/deletions`, { client_id: clientId, mask_id: maskId });
  }

  restoreMask(id: number, clientId: string, maskId: number): Promise<Mask> {
    return this.call("POST", `/assignments/${id}/restorations`, { client_id: clientId, mask_id: maskId });
  }

  /** Reject proposals of the image, or take that back; many at once are one act. */
  async reviewProposals(id: number, body: ReviewBody): Promise<void> {
    await this.call("POST", `/assignments/${id}/reviews`, body);
  }

  submit(id: number): Promise<{ state: string }> {
    return this.call("POST", `/assignments/${id}/submission`, {});
  }

  skip(id: number, reason: string): Promise<{ state: string }> {
    return this.call("POST", `/assignments/${id}/skip`, { reason });
  }

  release(id: number): Promise<{ state: string }> {
    return this.call("POST", `/assignments/${id}/release`, {});
  }

  progress(dataset: string): Promise<Progress> {
    return this.call("GET", `/datasets/${encodeURIComponent(dataset)}/progress`);
  }

  async retryJob(id: number): Promise<void> {
    await this.call("POST", `/jobs/${id}/retry`, {});
  }

  async schedules(dataset: string): Promise<Schedule[]> {
    return (await this.call<{ schedules: Schedule[] }>("GET", `/datasets/${encodeURIComponent(dataset)}/schedules`)).schedules;
  }

  addSchedule(dataset: string, schedule: NewSchedule): Promise<Schedule> {
    return this.call("POST", `/datasets/${encodeURIComponent(dataset)}/schedules`, schedule);
  }

  async removeSchedule(id: number): Promise<void> {
    await this.call("DELETE", `/schedules/${id}`);
  }

  /** Fetch the image's bytes; they are private, hence with the cookie and never through a URL of a picture tag. */
  async pixels(url: string, signal?: AbortSignal): Promise<Blob> {
    const response = await this.send(url, signal ? { signal } : {});
    if (!response.ok) throw await readProblem(response);
    return response.blob();
  }

  private keepToken(signedIn: SignedIn): SignedIn {
    this.csrfToken = signedIn.csrf_token;
    return signedIn;
  }

  private async call<T>(method: "GET" | "POST" | "DELETE", path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
    const headers = new Headers({ Accept: "application/json" });
    const init: RequestInit = { method, headers };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      headers.set("Content-Type", "application/json");
    }
    if (method !== "GET") headers.set("X-CSRF-Token", this.csrfToken);
    if (signal) init.signal = signal;
    const response = await this.send(this.base + path, init);
    if (!response.ok) throw await readProblem(response);
    return (response.status === 204 ? undefined : await response.json()) as T;
  }

  private async send(url: string, init: RequestInit): Promise<Response> {
    try {
      return await fetch(url, { credentials: "same-origin", ...init });
    } catch (error) {
      if (isAbort(error)) throw error;
      throw new NetworkError();
    }
  }
}
