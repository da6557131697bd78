/** A server that says what a test has told it to, and examples of what it may say, made from the golden file. */
import { ServerConnection } from '@jupyterlab/services';

import panel from '../../../tests/data/panel.json';
import { SessionModel } from '../model';
import { IAnswer, ISession } from '../tokens';

/** Nothing to be told beside the session. */
const QUIET: IAnswer = { ...(panel as IAnswer), waiting: '', trouble: '' };

/** A session with one worker job that has joined, one that is queued, one that has failed. */
export function anAnswer(session: Partial<ISession> | null = {}, more: Partial<IAnswer> = {}): IAnswer {
  const answer = structuredClone({ ...QUIET, ...more });
  return session
    ? { ...answer, session: { ...answer.session!, ...session } }
    : { ...answer, session: null, dashboard: '', hint: 'no session is running here' };
}

export interface IRequest {
  method: string;
  /** What comes after `/hpclab/`. */
  path: string;
  body: unknown;
}

export class FakeServer {
  readonly settings = ServerConnection.makeSettings({
    baseUrl: 'http://lab.test/',
    fetch: (input, init) => this._fetch(new Request(input, init))
  });

  readonly asked: IRequest[] = [];

  /** So many GETs of the session there were. */
  get looks(): number {
    return this.asked.filter(({ path }) => path === 'session').length;
  }

  /** What was asked for beside looks. */
  get deeds(): IRequest[] {
    return this.asked.filter(({ path }) => path !== 'session');
  }

  /** From now on, to each request of this kind, `GET session`. Null: it is as if the server were gone. */
  say(request: string, answer: unknown, status = 200): void {
    this._answers.set(request, () =>
      answer === null
        ? Promise.reject(new TypeError('Failed to fetch'))
        : Promise.resolve(new Response(JSON.stringify(answer), { status }))
    );
  }

  /** The answers to requests of this kind are on their way until it is called. */
  hold(request: string): () => void {
    const said = this._answers.get(request)!;
    let release = (): void => undefined;
    const released = new Promise<void>(resolve => (release = resolve));
    this._answers.set(request, () => released.then(said));
    return release;
  }

  private async _fetch(request: Request): Promise<Response> {
    const path = request.url.replace(/^.*\/hpclab\//, '').replace(/[?&]\d+$/, '');
    const text = await request.text();
    this.asked.push({ method: request.method, path, body: text ? JSON.parse(text) : undefined });
    const answer = this._answers.get(`${request.method} ${path.split('?')[0]}`);
    return answer ? answer() : new Response('Not Found', { status: 404 });
  }

  private readonly _answers = new Map<string, () => Promise<Response>>();
}

/** A model that has seen this; to be disposed of. */
export async function aModel(server: FakeServer, answer: IAnswer = anAnswer()): Promise<SessionModel> {
  server.say('GET session', answer);
  const model = new SessionModel({ settings: server.settings });
  await model.refresh();
  return model;
}
