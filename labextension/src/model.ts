/**
 * The session as the server last told it, and what can be asked of it. One poll for the whole page.
 */

import { ServerConnection } from '@jupyterlab/services';
import { PromiseDelegate } from '@lumino/coreutils';
import { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { posted, Problem, requestAPI } from './request';
import { IAnswer, ILog, ISession, IStory, IWorkersWanted } from './tokens';

const HIDDEN_INTERVAL_S = 20;
const MAX_INTERVAL_S = 60;
/** JupyterLab's page may be there before its server has loaded all of its extensions, and hpclab's routes with them. */
const SERVER_STARTS_WITHIN_S = 15;
const SERVER_STARTS_INTERVAL_S = 1;

export class SessionModel implements IDisposable {
  constructor(options: SessionModel.IOptions) {
    this._settings = options.settings;
    this._interval_s = options.interval_s ?? 2;
    this._poll = new Poll({
      auto: false,
      name: 'hpclab:session',
      factory: () => this._look(),
      frequency: this._frequency(),
      standby: 'never'
    });
    document.addEventListener('visibilitychange', this._onVisibility);
  }

  /** Begin to poll. */
  start(): void {
    void this._poll.start();
  }

  /** What the server last said; null: nothing yet. */
  get answer(): IAnswer | null {
    return this._answer;
  }

  /** The first thing that it said. Never rejects. */
  get first(): Promise<IAnswer> {
    return this._first.promise;
  }

  /** Why the last look brought nothing, a `Problem` or `NoAnswer`; null: it did. */
  get problem(): Error | null {
    return this._problem;
  }

  /** When `answer` came, by this browser's clock, in seconds since the epoch; null: never. */
  get lastKnown(): number | null {
    return this._lastKnown;
  }

  /** How old `answer` is; 0 where there is none. To be taken from a `time_left_s`. */
  get age_s(): number {
    return this._lastKnown === null ? 0 : Math.max(0, Date.now() / 1000 - this._lastKnown);
  }

  /** Something that was asked for is under way: its buttons wait. */
  get isBusy(): boolean {
    return this._underWay.size > 0;
  }

  /** Whether this one is: add, scale, retire, stop or start. */
  isDoing(what: SessionModel.Deed): boolean {
    return [...this._underWay.keys()].some(key => key === what || key.startsWith(`${what} `));
  }

  /** `stop` was accepted: that the server falls silent now is no fault. */
  get isStopping(): boolean {
    return this._isStopping;
  }

  /** Which session it is: its name, and since names return, its birthday. Empty: there is none. */
  get which(): string {
    const session = this._answer?.session;
    return session ? `${session.name} ${session.created}` : '';
  }

  /** There is a session that is not over, nor told to stop. */
  get hasSession(): boolean {
    const session = this._answer?.session;
    return !!session && !isOver(session) && !this._isStopping;
  }

  /** There is none, or its server has outlived it: then that is not the session's own, and may have another. */
  get canStart(): boolean {
    return !!this._answer && !this.hasSession && !this._problem && !this._isStopping;
  }

  /** Anything of the above is new. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Seconds between two looks while somebody watches. */
  get interval_s(): number {
    return this._interval_s;
  }
  set interval_s(value: number) {
    if (value !== this._interval_s) {
      this._interval_s = value;
      this._poll.frequency = this._frequency();
    }
  }

  /** Look now. Never rejects: `problem` says what was wrong. */
  async refresh(): Promise<void> {
    if (this.isDisposed) {
      return;
    }
    // also while a look is under way, which may have left before what was done since
    await this._poll.schedule({ interval: Poll.IMMEDIATE, phase: 'refreshed' });
    await this._poll.tick.catch(() => undefined);
  }

  /** Ask for workers; says what was submitted. */
  add(wanted: IWorkersWanted): Promise<string> {
    return this._do('add', wanted.request, async () => {
      const { text } = await this._request<{ text: string }>('workers', posted(wanted));
      return text;
    });
  }

  /** Have so many workers. */
  scale(workers: number): Promise<string> {
    return this._do('scale', '', async () => {
      const { text } = await this._request<{ text: string }>('scale', posted({ workers }));
      return text;
    });
  }

  /** Let a worker job hand its data over and leave. */
  retire(jobId: string): Promise<string> {
    return this._do('retire', jobId, async () => {
      const { text } = await this._request<{ text: string }>(`workers/${encodeURIComponent(jobId)}`, {
        method: 'DELETE'
      });
      return text;
    });
  }

  /** End the session, and this server with it; the ids of the jobs that will be cancelled. */
  stop(): Promise<string[]> {
    return this._do('stop', '', async () => {
      const { jobs } = await this._request<{ jobs: string[] }>('stop', posted());
      this._isStopping = true;
      return jobs;
    });
  }

  /** Where there is none: a session on this machine; its name. */
  startLocal(): Promise<string> {
    return this._do('start', '', async () => {
      const { name } = await this._request<{ name: string }>('start', posted({ queue: 'local' }));
      return name;
    });
  }

  why(jobId: string): Promise<IStory> {
    return this._request(`jobs/${encodeURIComponent(jobId)}/why`);
  }

  log(jobId: string, lines = 1000): Promise<ILog> {
    return this._request(`jobs/${encodeURIComponent(jobId)}/log?lines=${lines}`);
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  dispose(): void {
    if (!this.isDisposed) {
      document.removeEventListener('visibilitychange', this._onVisibility);
      this._poll.dispose();
      Signal.clearData(this);
    }
  }

  private _request<T>(path: string, init?: RequestInit): Promise<T> {
    return requestAPI<T>(this._settings, path, init);
  }

  private async _look(): Promise<void> {
    const mine = ++this._looks;
    try {
      const answer = await this._request<IAnswer>('session');
      this._see(mine, answer, null);
    } catch (problem) {
      if (this._isServerStarting(problem)) {
        void this._poll.schedule({ interval: SERVER_STARTS_INTERVAL_S * 1000, phase: 'started' });
        return;
      }
      this._see(mine, null, problem as Error);
      throw problem; // the poll then waits longer
    }
  }

  /** What a look brought, unless a later one has begun. */
  private _see(look: number, answer: IAnswer | null, problem: Error | null): void {
    if (look !== this._looks || this.isDisposed) {
      return;
    }
    this._problem = problem;
    if (answer) {
      this._answer = answer;
      this._lastKnown = Date.now() / 1000;
      this._first.resolve(answer);
      // it is over and its server is not, or it could not be stopped
      if (!answer.session || isOver(answer.session) || answer.trouble) {
        this._isStopping = false;
      }
    }
    this._changed.emit();
  }

  private _isServerStarting(problem: unknown): boolean {
    const isNotFound = problem instanceof Problem && problem.status === 404;
    return isNotFound && !this._answer && performance.now() - this._began_ms < SERVER_STARTS_WITHIN_S * 1000;
  }

  /** What is under way already is not done again; who asks gets the answer of the first. */
  private _do<T>(what: SessionModel.Deed, which: string, deed: () => Promise<T>): Promise<T> {
    const key = which ? `${what} ${which}` : what;
    const underWay = this._underWay.get(key) as Promise<T> | undefined;
    if (underWay) {
      return underWay;
    }
    const done = deed().finally(() => {
      this._underWay.delete(key);
      this._changed.emit();
      void this.refresh();
    });
    this._underWay.set(key, done);
    this._changed.emit();
    return done;
  }

  private _frequency(): Poll['frequency'] {
    const seconds = document.hidden ? Math.max(HIDDEN_INTERVAL_S, this._interval_s) : this._interval_s;
    return { interval: seconds * 1000, backoff: 2, max: Math.max(MAX_INTERVAL_S, seconds) * 1000 };
  }

  private readonly _onVisibility = (): void => {
    this._poll.frequency = this._frequency();
    if (!document.hidden && this._poll.state.phase !== 'constructed') {
      void this.refresh();
    }
  };

  private readonly _settings: ServerConnection.ISettings;
  private readonly _poll: Poll;
  private readonly _underWay = new Map<string, Promise<unknown>>();
  private readonly _changed = new Signal<this, void>(this);
  private _interval_s: number;
  private _answer: IAnswer | null = null;
  private readonly _first = new PromiseDelegate<IAnswer>();
  private _problem: Error | null = null;
  private _lastKnown: number | null = null;
  private _isStopping = false;
  private _looks = 0;
  private readonly _began_ms = performance.now();
}

function isOver({ state }: ISession): boolean {
  return state === 'ended' || state === 'failed';
}

export namespace SessionModel {
  export interface IOptions {
    settings: ServerConnection.ISettings;
    interval_s?: number;
  }

  export type Deed = 'add' | 'scale' | 'retire' | 'stop' | 'start';
}
