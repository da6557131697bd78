/**
 * The server's routes: the only place that speaks HTTP.
 */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { IProblem, NAMESPACE } from './tokens';

/** A server that is asked how things are answers soon; one that submits jobs waits for the batch system. */
const READ_TIMEOUT_S = 30;
const WRITE_TIMEOUT_S = 300;

/** The server answered, and the answer is an error. `name` is its class, as on the command line. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    { error, message }: IProblem
  ) {
    super(message);
    this.name = error;
  }
}

/** Nobody answered: the network, the tunnel or the server is gone. */
export class NoAnswer extends Error {
  constructor(cause: unknown) {
    super('no answer from the server of this page: the tunnel may be closed, or the session has ended', { cause });
    this.name = 'NoAnswer';
  }
}

/**
 * Ask one of hpclab's routes, `session` or `jobs/12/why`.
 *
 * Rejects with a `Problem` or with `NoAnswer`, and with nothing else.
 */
export async function requestAPI<T>(
  settings: ServerConnection.ISettings,
  path: string,
  init: RequestInit = {}
): Promise<T> {
  const url = URLExt.join(settings.baseUrl, NAMESPACE, path);
  const timeout_s = init.method && init.method !== 'GET' ? WRITE_TIMEOUT_S : READ_TIMEOUT_S;
  // a tunnel that died while the laptop slept neither answers nor refuses
  const signal = AbortSignal.timeout(timeout_s * 1000);
  let response: Response;
  let text: string;
  try {
    response = await ServerConnection.makeRequest(url, { signal, ...init }, settings);
    text = await response.text();
  } catch (cause) {
    throw new NoAnswer(cause);
  }
  const body = parsed(text);
  if (!response.ok) {
    throw new Problem(response.status, problemOf(response, body));
  }
  if (body === undefined) {
    // a login page, or something else that listens where the server was
    throw new Problem(response.status, { error: 'UnreadableAnswer', message: `not hpclab's answer: ${start(text)}` });
  }
  return body as T;
}

/** As the body of a POST. */
export function posted(body: object = {}): RequestInit {
  return { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function problemOf(response: Response, body: unknown): IProblem {
  const told: Partial<IProblem> = typeof body === 'object' && body !== null ? body : {};
  const error = typeof told.error === 'string' ? told.error : `HTTP ${response.status}`;
  const message = typeof told.message === 'string' && told.message ? told.message : response.statusText;
  if (response.status === 404 && typeof told.error !== 'string') {
    return {
      error,
      message:
        'this server knows nothing of hpclab: `jupyter server extension list`, in its environment, shows whether it is enabled'
    };
  }
  return { error, message: message || error };
}

function start(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text || 'nothing at all';
}
