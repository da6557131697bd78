/** The session panel: what the session is, what it has, what it costs, and the buttons to change that. */
import * as React from 'react';
import { closeIcon, ReactWidget, refreshIcon, UseSignal } from '@jupyterlab/ui-components';
import { CommandRegistry } from '@lumino/commands';

import { ActionButton } from './button';
import { sessionIcon } from './icons';
import { Mark } from './mark';
import { SessionModel } from './model';
import { Plot } from './plot';
import { CommandIDs, IAnswer, ISession } from './tokens';
import { bytes, coreHours, duration, jobState, lastKnown, moment } from './words';
import { Run, WorkerList } from './workers';

export class SessionPanel extends ReactWidget {
  constructor(model: SessionModel, commands: CommandRegistry) {
    super();
    this._model = model;
    this._run = (command, id) => commands.execute(command, id ? { id } : {});
    this.id = 'hpclab-panel';
    this.addClass('hpclab-Panel');
    this.title.icon = sessionIcon;
    this.title.caption = 'Session on the cluster';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Session on the cluster');
  }

  protected override render(): React.JSX.Element {
    return <UseSignal signal={this._model.changed}>{() => <Panel model={this._model} run={this._run} />}</UseSignal>;
  }

  private readonly _model: SessionModel;
  private readonly _run: Run;
}

interface IPanelProps {
  model: SessionModel;
  run: Run;
}

function Panel({ model, run }: IPanelProps): React.JSX.Element {
  const { answer } = model;
  return (
    <>
      <Announcement session={answer?.session ?? null} />
      <Silence model={model} run={run} />
      {answer && <Strips answer={answer} />}
      {answer?.session && <Session model={model} answer={answer} session={answer.session} run={run} />}
      {answer && !answer.session && <h2 className="hpclab-Title">No session</h2>}
      {answer && !answer.session && <Start hint={answer.hint} run={run} />}
      {!answer && !model.problem && <p className="hpclab-Quiet">Asking how the session is…</p>}
    </>
  );
}

interface ISessionProps extends IPanelProps {
  answer: IAnswer;
  session: ISession;
}

function Session({ model, answer, session, run }: ISessionProps): React.JSX.Element {
  const isOver = ['ended', 'failed', 'unreadable'].includes(session.state);
  // a server that outlives its session is not one that the session had started: another one may take its place
  const isOutlived = isOver && model.canStart;
  return (
    <>
      <header className="hpclab-Header" data-state={session.state}>
        <h2 className="hpclab-Title" title={session.name}>
          {session.name}
        </h2>
        <span className="hpclab-Header-state">
          <Mark state={session.state} />
          {session.state}
        </span>
        <p className="hpclab-Header-where">{whereWords(session)}</p>
        {session.reason && <p className="hpclab-Header-reason">{session.reason}</p>}
      </header>
      {isOutlived && <Start hint="" run={run} />}
      <TimeLeft session={session} age_s={model.age_s} />
      <Sums session={session} />
      <Plot history={answer.history} />
      {!isOver && (
        <div className="hpclab-Buttons">
          <ActionButton className="hpclab-Button hpclab-mod-first" onAct={() => run(CommandIDs.addWorker, '')}>
            Add worker
          </ActionButton>
          <ActionButton className="hpclab-Button" onAct={() => run(CommandIDs.scale, '')}>
            Scale…
          </ActionButton>
        </div>
      )}
      <WorkerList jobs={session.jobs} run={run} />
      {!isOver && (
        <footer className="hpclab-Footer">
          <ActionButton className="hpclab-Button hpclab-mod-warn" onAct={() => run(CommandIDs.stop, '')}>
            Stop session…
          </ActionButton>
        </footer>
      )}
    </>
  );
}

function whereWords({ node, queue }: ISession): string {
  return [node && `on ${node}`, queue && `queue ${queue}`].filter(Boolean).join(' · ');
}

const AMBER_S = 10 * 60;
const RED_S = 2 * 60;

/** Of the main job, with which the notebooks end. */
function TimeLeft({ session, age_s }: { session: ISession; age_s: number }): React.JSX.Element | null {
  const main = session.jobs.find(job => job.role === 'main' && job.time_left_s !== null);
  if (session.time_left_s === null || !main) {
    return null;
  }
  const left_s = Math.max(0, Math.round(session.time_left_s - age_s));
  const all_s = Math.max(left_s, main.walltime_s, 1);
  const colour = left_s < RED_S ? 'red' : left_s < AMBER_S ? 'amber' : 'green';
  const words = `${duration(left_s)} left`;
  return (
    <div className="hpclab-TimeLeft" data-colour={colour}>
      <p className="hpclab-TimeLeft-words">
        <b>{words}</b>
        <span>{main.end_time === null ? '' : `until ${moment(main.end_time)}`}</span>
      </p>
      <div
        className="hpclab-TimeLeft-track"
        role="progressbar"
        aria-label="Time left of the main job"
        aria-valuemin={0}
        aria-valuemax={all_s}
        aria-valuenow={left_s}
        aria-valuetext={`${words} of ${duration(main.walltime_s)}`}
      >
        <div className="hpclab-TimeLeft-bar" style={{ width: `${(left_s / all_s) * 100}%` }} />
      </div>
    </div>
  );
}

function Sums({ session }: { session: ISession }): React.JSX.Element {
  const { workers, core_hours } = session;
  const sums: [string, string, string][] = [
    ['cores', String(workers.cores), 'Cores of the workers that have joined'],
    ['memory', bytes(workers.memory_bytes), 'Memory of the workers that have joined'],
    ['workers', String(workers.joined), 'Workers that have joined'],
    ['queued', String(workers.pending), 'Workers that wait in the queue'],
    ['core-h used', coreHours(core_hours.used), 'Core-hours of all jobs since they started'],
    [
      'core-h idle',
      core_hours.idle === null ? '–' : coreHours(core_hours.idle),
      core_hours.idle === null ? 'Not known' : 'Core-hours of these in which no task ran'
    ]
  ];
  return (
    <dl className="hpclab-Sums">
      {sums.map(([word, value, meaning]) => (
        <div key={word} title={meaning}>
          <dt>{word}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** What the server has to say beside the session. */
function Strips({ answer }: { answer: IAnswer }): React.JSX.Element {
  const [dismissed, setDismissed] = React.useState('');
  return (
    <>
      {answer.waiting && (
        <p className="hpclab-Strip" data-kind="waiting" role="status">
          {answer.waiting}
        </p>
      )}
      {answer.trouble && answer.trouble !== dismissed && (
        <div className="hpclab-Strip" data-kind="trouble" role="alert">
          <p>{answer.trouble}</p>
          <button
            type="button"
            className="hpclab-IconButton"
            aria-label="Dismiss"
            title="Dismiss"
            onClick={() => {
              setDismissed(answer.trouble);
            }}
          >
            <closeIcon.react tag="span" elementSize="normal" />
          </button>
        </div>
      )}
    </>
  );
}

/** The server does not answer: what is shown below is how it was. */
function Silence({ model, run }: IPanelProps): React.JSX.Element | null {
  const { problem, isStopping, age_s } = model;
  const isKnown = model.answer !== null;
  useTick(problem !== null && isKnown);
  if (!problem) {
    return null;
  }
  return (
    <div className="hpclab-Strip" data-kind={isStopping ? 'waiting' : 'silence'} role="status">
      <p>
        {/* not told aloud: it changes all the time */}
        {isKnown && <b aria-hidden="true">{`${lastKnown(age_s)} `}</b>}
        {isStopping ? 'The session was stopped, and this server ends with it.' : problem.message}
      </p>
      {!isStopping && (
        <ActionButton
          className="hpclab-IconButton"
          aria-label="Ask again"
          title="Ask again"
          onAct={() => run(CommandIDs.refresh, '')}
        >
          <refreshIcon.react tag="span" elementSize="normal" />
        </ActionButton>
      )}
    </div>
  );
}

function Start({ hint, run }: { hint: string; run: Run }): React.JSX.Element {
  return (
    <section className="hpclab-Start">
      {hint && (
        <pre>
          <code>{hint}</code>
        </pre>
      )}
      <ActionButton className="hpclab-Button hpclab-mod-first" onAct={() => run(CommandIDs.startLocal, '')}>
        Start a session on this machine
      </ActionButton>
    </section>
  );
}

/** Tells a screen reader of changes of state, and of nothing else. */
function Announcement({ session }: { session: ISession | null }): React.JSX.Element {
  const before = React.useRef<ISession | null>(null);
  const [words, setWords] = React.useState('');
  React.useEffect(() => {
    const news = changes(before.current, session);
    before.current = session;
    if (news) {
      setWords(news);
    }
  }, [session]);
  return (
    <div className="hpclab-Unseen" aria-live="polite">
      {words}
    </div>
  );
}

const FEW = 3;

/** What is new in a sentence; of many jobs only how many. */
export function changes(before: ISession | null, after: ISession | null): string {
  if (!after) {
    return before ? 'No session' : '';
  }
  const news: string[] = [];
  if (before?.name !== after.name || before.state !== after.state) {
    news.push(`session ${after.name}: ${after.state}`);
  }
  if (before?.name === after.name) {
    const states = new Map(before.jobs.map(job => [job.id, jobState(job)]));
    const changed = after.jobs.filter(job => states.get(job.id) !== jobState(job));
    news.push(
      ...(changed.length > FEW
        ? [`${changed.length} jobs have changed`]
        : changed.map(job => `job ${job.id}: ${jobState(job)}`))
    );
  }
  return news.join(', ');
}

const TICK_MS = 5000;

/** Draws anew every few seconds, for words that age. */
function useTick(isNeeded: boolean): void {
  const [, setTick] = React.useState(0);
  React.useEffect(() => {
    if (!isNeeded) {
      return;
    }
    const timer = setInterval(() => {
      setTick(tick => tick + 1);
    }, TICK_MS);
    return () => {
      clearInterval(timer);
    };
  }, [isNeeded]);
}
