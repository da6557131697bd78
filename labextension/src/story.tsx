/** The tabs of a job: its story, and its log. */
import * as React from 'react';
import { listIcon, LabIcon, ReactWidget, refreshIcon, infoIcon } from '@jupyterlab/ui-components';
import { MainAreaWidget } from '@jupyterlab/apputils';

import { ActionButton } from './button';
import { Mark } from './mark';
import { SessionModel } from './model';
import { IEvent, ILog, IStory } from './tokens';
import { jobState, moment } from './words';

export function storyTab(model: SessionModel, jobId: string): MainAreaWidget {
  return tab(`why ${jobId}`, `Why: the story of job ${jobId}`, infoIcon, isVisible => (
    <Story model={model} jobId={jobId} isVisible={isVisible} />
  ));
}

export function logTab(model: SessionModel, jobId: string): MainAreaWidget {
  return tab(`log ${jobId}`, `Log of job ${jobId}`, listIcon, isVisible => (
    <Log model={model} jobId={jobId} isVisible={isVisible} />
  ));
}

function tab(
  label: string,
  caption: string,
  icon: LabIcon,
  show: (isVisible: () => boolean) => React.JSX.Element
): MainAreaWidget {
  const content = ReactWidget.create(show(() => content.isVisible));
  content.addClass('hpclab-Tab');
  const widget = new MainAreaWidget({ content });
  widget.title.label = label;
  widget.title.caption = caption;
  widget.title.icon = icon;
  widget.title.closable = true;
  return widget;
}

interface ITabProps {
  model: SessionModel;
  jobId: string;
  isVisible: () => boolean;
}

interface IAsked<T> {
  /** The last that came. */
  value: T | null;
  /** Why the last question brought nothing. */
  problem: string;
  ask: () => Promise<void>;
}

/** Asks at once, and again when told to; keeps the last answer when the next one does not come. */
function useAsked<T>(question: () => Promise<T>): IAsked<T> {
  const [value, setValue] = React.useState<T | null>(null);
  const [problem, setProblem] = React.useState('');
  const latest = React.useRef(0);
  const ask = React.useCallback(async () => {
    const mine = ++latest.current;
    // an answer that was overtaken by a later one is old
    const isLatest = (): boolean => mine === latest.current;
    try {
      const answer = await question();
      if (isLatest()) {
        setValue(answer);
        setProblem('');
      }
    } catch (error) {
      if (isLatest()) {
        setProblem((error as Error).message);
      }
    }
  }, [question]);
  React.useEffect(() => {
    void ask();
  }, [ask]);
  return { value, problem, ask };
}

function Story({ model, jobId }: ITabProps): React.JSX.Element {
  const { value, problem, ask } = useAsked<IStory>(React.useCallback(() => model.why(jobId), [model, jobId]));
  return (
    <>
      <div className="hpclab-Tab-bar">
        <h2>{`Job ${jobId}`}</h2>
        {value && (
          <span className="hpclab-Tab-state" data-state={value.job.state}>
            <Mark state={value.job.state} />
            {jobState(value.job)}
          </span>
        )}
        <Refresh ask={ask} />
      </div>
      <Trouble problem={problem} />
      {!value && !problem && <p className="hpclab-Quiet">Asking…</p>}
      {value && (
        <div className="hpclab-Tab-body">
          {value.job.reason && <p className="hpclab-Story-reason">{value.job.reason}</p>}
          <Events events={value.events} />
          {value.log_tail && (
            <>
              <h3>The end of its log</h3>
              <Lines text={value.log_tail} />
            </>
          )}
        </div>
      )}
    </>
  );
}

function Events({ events }: { events: IEvent[] }): React.JSX.Element {
  if (events.length === 0) {
    return <p className="hpclab-Quiet">It has told nothing yet.</p>;
  }
  return (
    <ol className="hpclab-Events">
      {events.map((event, index) => (
        <li key={index}>
          <time dateTime={new Date(event.time * 1000).toISOString()}>{toTheSecond(event.time)}</time>
          <span>{event.sentence}</span>
        </li>
      ))}
    </ol>
  );
}

const LINES = [100, 1000, 10000];
const FOLLOW_MS = 2000;

function Log({ model, jobId, isVisible }: ITabProps): React.JSX.Element {
  const [lines, setLines] = React.useState(1000);
  const [follows, setFollows] = React.useState(false);
  const { value, problem, ask } = useAsked<ILog>(
    React.useCallback(() => model.log(jobId, lines), [model, jobId, lines])
  );
  const box = React.useRef<HTMLDivElement>(null);

  React.useEffect(() => {
    if (!follows) {
      return;
    }
    let timer = 0;
    let isOver = false;
    // the next question only after the answer to the last
    const next = async (): Promise<void> => {
      if (isVisible()) {
        await ask();
      }
      if (!isOver) {
        timer = window.setTimeout(() => void next(), FOLLOW_MS);
      }
    };
    void next();
    return () => {
      isOver = true;
      window.clearTimeout(timer);
    };
  }, [follows, ask, isVisible]);

  // its end is what one looks for: at first, and as long as one follows
  const isFirst = React.useRef(true);
  React.useLayoutEffect(() => {
    if (value && box.current && (follows || isFirst.current)) {
      isFirst.current = false;
      box.current.scrollTop = box.current.scrollHeight;
    }
  }, [value, follows]);

  return (
    <>
      <div className="hpclab-Tab-bar">
        <h2>{`Log of job ${jobId}`}</h2>
        <label>
          <span>last</span>
          <select
            value={lines}
            onChange={event => {
              setLines(Number(event.target.value));
            }}
          >
            {LINES.map(count => (
              <option key={count} value={count}>{`${count} lines`}</option>
            ))}
          </select>
        </label>
        <label>
          <input
            type="checkbox"
            checked={follows}
            onChange={event => {
              setFollows(event.target.checked);
            }}
          />
          <span>follow</span>
        </label>
        <Refresh ask={ask} />
      </div>
      <Trouble problem={problem} />
      {!value && !problem && <p className="hpclab-Quiet">Asking…</p>}
      {value && (
        <div className="hpclab-Tab-body hpclab-mod-log" ref={box} tabIndex={0} aria-label="Log">
          {value.is_cut && <p className="hpclab-Quiet">The log is longer: this is its end.</p>}
          <Lines text={value.text} />
        </div>
      )}
    </>
  );
}

function Lines({ text }: { text: string }): React.JSX.Element {
  return text ? <pre className="hpclab-Log">{text}</pre> : <p className="hpclab-Quiet">It is empty.</p>;
}

function Refresh({ ask }: { ask: () => Promise<void> }): React.JSX.Element {
  return (
    <ActionButton className="hpclab-IconButton" aria-label="Refresh" title="Refresh" onAct={ask}>
      <refreshIcon.react tag="span" elementSize="normal" />
    </ActionButton>
  );
}

function Trouble({ problem }: { problem: string }): React.JSX.Element | null {
  return problem ? (
    <p className="hpclab-Strip" data-kind="silence" role="status">
      {problem}
    </p>
  ) : null;
}

/** `14:05:09`, with the day if that is not today. */
function toTheSecond(time_s: number): string {
  return `${moment(time_s)}:${String(new Date(time_s * 1000).getSeconds()).padStart(2, '0')}`;
}
