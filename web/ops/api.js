// The session of the operator, and calls under it. Tokens are kept for this tab
// alone, and never leave for another host.

const KEPT = "onsale.ops.session";
const DEADLINE_MS = 8000;

let session = read();

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT));
  } catch {
    return null;
  }
}

function keep(next) {
  session = next;
  if (next) sessionStorage.setItem(KEPT, JSON.stringify(next));
  else sessionStorage.removeItem(KEPT);
}

// What the server answered in place of what was asked for.
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? problem?.title ?? `the server answered ${status}`);
    this.status = status;
    this.code = problem?.code;
  }
}

async function call(method, path, { token, body } = {}) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(`/api/v1${path}`, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(DEADLINE_MS),
    cache: "no-store",
  });
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

export function isSignedIn() {
  return session !== null;
}

export async function signIn(email, password) {
  const made = await call("POST", "/sessions", { body: { email, password } });
  const user = await call("GET", "/me", { token: made.access_token });
  if (!user.roles.includes("admin")) {
    call("DELETE", "/sessions/current", { token: made.access_token }).catch(() => {});
    throw new Error("This account is not an administrator's.");
  }
  keep({ access: made.access_token, refresh: made.refresh_token });
}

export async function signOut() {
  const token = session?.access;
  keep(null);
  if (token) await call("DELETE", "/sessions/current", { token }).catch(() => {});
}

let renewing = null;

// A refresh token works once: all who need a new pair wait for the same.
function renew() {
  renewing ??= call("POST", "/sessions/refresh", { body: { refresh_token: session.refresh } })
    .then((made) => keep({ access: made.access_token, refresh: made.refresh_token }))
    .finally(() => { renewing = null; });
  return renewing;
}

export async function get(path) {
  if (!session) throw new Refused(401, { title: "sign in first" });
  try {
    return await call("GET", path, { token: session.access });
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 401) throw error;
  }
  try {
    await renew();
    return await call("GET", path, { token: session.access });
  } catch (error) {
    if (error instanceof Refused && [401, 403].includes(error.status)) keep(null);
    throw error;
  }
}
