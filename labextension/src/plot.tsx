/** Cores over time, as a small drawing. */
import * as React from 'react';

import { IHistory } from './tokens';
import { moment } from './words';

const WIDTH = 240;
const HEIGHT = 60;

interface ISample {
  kind: 'requested' | 'running' | 'busy';
  word: string;
  /** What the pointer is told of it. */
  meaning: string;
}

const SAMPLES: ISample[] = [
  { kind: 'requested', word: 'requested', meaning: 'Cores of all jobs that wait or run' },
  { kind: 'running', word: 'running', meaning: 'Cores of the jobs that run' },
  { kind: 'busy', word: 'busy', meaning: 'Cores with a task on them' }
];

/** A line that keeps its height until the next point. */
export function steps(x: number[], y: number[]): string {
  return x.map((at, i) => (i === 0 ? `M${at} ${y[i]}` : `H${at}V${y[i]}`)).join('');
}

export function Plot({ history }: { history: IHistory }): React.JSX.Element {
  const id = React.useId();
  const { time } = history;
  const begin = time[0];
  const end = time[time.length - 1];
  if (time.length < 2 || end <= begin) {
    return <p className="hpclab-Plot-empty">Cores over time are drawn here as soon as there are some.</p>;
  }
  const top = Math.max(1, ...history.requested, ...history.running, ...history.busy);
  const x = time.map(at => round(((at - begin) / (end - begin)) * WIDTH));
  const line = (cores: number[]): string =>
    steps(
      x,
      cores.map(n => round(HEIGHT - (n / top) * HEIGHT))
    );
  const area = (cores: number[]): string => `${line(cores)}V${HEIGHT}H0Z`;
  const last = (kind: ISample['kind']): string => number(history[kind][time.length - 1]);
  return (
    <figure className="hpclab-Plot">
      <div className="hpclab-Plot-frame">
        <span className="hpclab-Plot-top" aria-hidden="true">
          {number(top)}
        </span>
        <svg
          role="img"
          aria-labelledby={`${id}title ${id}desc`}
          viewBox={`0 -1 ${WIDTH} ${HEIGHT + 2}`}
          preserveAspectRatio="none"
        >
          <title id={`${id}title`}>Cores over time</title>
          <desc id={`${id}desc`}>
            {`From ${moment(begin)} until ${moment(end)}, at most ${number(top)} cores. ` +
              `Last: ${SAMPLES.map(({ kind, word }) => `${last(kind)} ${word}`).join(', ')}.`}
          </desc>
          <Hatch id={`${id}hatch`} />
          <path className="hpclab-Plot-grid" d={`M0 0H${WIDTH}M0 ${HEIGHT}H${WIDTH}`} />
          <path className="hpclab-Plot-runningArea" d={area(history.running)} />
          <path className="hpclab-Plot-busyArea" d={area(history.busy)} style={{ fill: `url(#${id}hatch)` }} />
          <path className="hpclab-Plot-busy" d={line(history.busy)} />
          <path className="hpclab-Plot-running" d={line(history.running)} />
          <path className="hpclab-Plot-requested" d={line(history.requested)} />
        </svg>
        <div className="hpclab-Plot-times" aria-hidden="true">
          <span>{moment(begin)}</span>
          <span>{moment(end)}</span>
        </div>
      </div>
      <figcaption className="hpclab-Plot-legend">
        {SAMPLES.map(({ kind, word, meaning }) => (
          <span key={kind} title={meaning}>
            <svg viewBox="0 0 16 10" width="16" height="10" aria-hidden="true">
              {kind === 'running' && <path className="hpclab-Plot-runningArea" d="M0 2h16v8H0z" />}
              {kind === 'busy' && (
                <path className="hpclab-Plot-busyArea" d="M0 2h16v8H0z" style={{ fill: `url(#${id}hatch)` }} />
              )}
              <path className={`hpclab-Plot-${kind}`} d={kind === 'requested' ? 'M0 5h16' : 'M0 2h16'} />
            </svg>
            {word} <b>{last(kind)}</b>
          </span>
        ))}
      </figcaption>
    </figure>
  );
}

function Hatch({ id }: { id: string }): React.JSX.Element {
  return (
    <defs>
      <pattern id={id} width="4" height="4" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
        <path className="hpclab-Plot-hatch" d="M0 0V4" />
      </pattern>
    </defs>
  );
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function number(cores: number): string {
  return String(Math.round(cores * 10) / 10);
}
