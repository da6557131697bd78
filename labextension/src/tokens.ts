/**
 * Names and interfaces. Importing this file has no effect.
 *
 * The interfaces mirror what `hpclab.view.SessionView.describe` and `hpclab/server` send; one golden file
 * (`tests/data/session.json`, `tests/data/panel.json`) holds both languages together. Times are seconds since the
 * epoch, durations seconds, sizes bytes. No rule of the product stands here: states, reasons and sums are Python's.
 */

export const NAMESPACE = 'hpclab';

export namespace CommandIDs {
  export const openPanel = 'hpclab:open-panel';
  export const addWorker = 'hpclab:add-worker';
  export const scale = 'hpclab:scale';
  export const retireWorker = 'hpclab:retire-worker';
  export const why = 'hpclab:why';
  export const log = 'hpclab:log';
  export const stop = 'hpclab:stop';
  export const startLocal = 'hpclab:start-local';
  export const dashboardLayout = 'hpclab:dashboard-layout';
  export const refresh = 'hpclab:refresh';
}

export type JobState =
  'pending' | 'held' | 'running' | 'completing' | 'done' | 'failed' | 'cancelled' | 'gone' | 'unknown';

export interface IJob {
  id: string;
  role: 'main' | 'worker';
  state: JobState;
  /** In words, the batch system's own or the job's. */
  reason: string;
  node: string;
  /** Dask workers that it asked for, that have joined, and that are at work. */
  workers: number;
  joined: number;
  busy: number;
  /** Of each worker. */
  cores: number;
  memory_bytes: number;
  gpus: number;
  /** Of all its workers, now, as the Dask scheduler knows it; 100 is one core. Null: not known. */
  cpu_percent: number | null;
  memory_used_bytes: number | null;
  walltime_s: number;
  submit_time: number | null;
  /** When the batch system expects a waiting job to start. */
  expected_start: number | null;
  start_time: number | null;
  end_time: number | null;
  time_left_s: number | null;
  exit_status: number | null;
}

export type SessionState =
  'queued' | 'held' | 'starting' | 'running' | 'ending' | 'ended' | 'failed' | 'unknown' | 'unreadable';

export interface ISession {
  name: string;
  state: SessionState;
  reason: string;
  queue: string;
  /** The script of a run; null: it is a session with JupyterLab. */
  program: {
    script: string;
    arguments: string[];
    launch: 'mpi' | 'file';
    /** The script's own; null: it has not ended, or without a word. */
    exit_status: number | null;
  } | null;
  node: string;
  jupyter_url: string | null;
  dashboard_url: string | null;
  tunnel: string[] | null;
  folder: string;
  created: number;
  time_left_s: number | null;
  core_hours: {
    /** Of all cores of all jobs, from each job's start. */
    used: number;
    /** Of these the part in which no task ran; null: not known. */
    idle: number | null;
  };
  workers: {
    joined: number;
    cores: number;
    memory_bytes: number;
    pending: number;
  };
  jobs: IJob[];
}

/** Cores at points in time, the oldest first: four arrays of one length. */
export interface IHistory {
  time: number[];
  /** By all jobs that wait or run. */
  requested: number[];
  /** By jobs that run. */
  running: number[];
  /** With a task on them. */
  busy: number[];
}

/** The answer to `GET /hpclab/session`. */
export interface IAnswer {
  session: ISession | null;
  history: IHistory;
  /** What the form for a new worker shows at first: as the last one had it, in words that it takes back. */
  defaults: {
    count: number;
    cores: string;
    memory: string;
    walltime: string;
  };
  /** Why something that was asked for waits: nobody is there to carry it out. Empty: nothing waits. */
  waiting: string;
  /** What went wrong in the background since; empty: nothing. */
  trouble: string;
  /** Where Dask's dashboard is, under the server's base URL; empty: there is none. */
  dashboard: string;
  /** Where there is no session: how to start one. */
  hint: string;
  /** The server's clock, in seconds since the epoch. */
  now: number;
}

export interface IEvent {
  time: number;
  what: string;
  sentence: string;
}

/** The answer to `GET /hpclab/jobs/ID/why`. */
export interface IStory {
  job: IJob;
  events: IEvent[];
  log_tail: string;
}

/** The answer to `GET /hpclab/jobs/ID/log`. */
export interface ILog {
  text: string;
  /** The log is longer than this; its end is here. */
  is_cut: boolean;
}

/** The body of `POST /hpclab/workers`; what is left out is as the session has it. */
export interface IWorkersWanted {
  count: number;
  cores?: string;
  memory?: string;
  walltime?: string;
  /** Of one click: said twice, it is carried out once. */
  request: string;
}

/** The body of every answer that is an error. */
export interface IProblem {
  error: string;
  message: string;
}
