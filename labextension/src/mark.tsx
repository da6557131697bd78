/** The mark of a state: a shape, so that colour only repeats what the shape says. */
import * as React from 'react';

import { JobState, SessionState } from './tokens';

type State = JobState | SessionState;

const RING = <circle cx="6" cy="6" r="4.2" className="hpclab-Mark-line" />;

const SHAPES: Record<State, React.JSX.Element> = {
  pending: RING,
  queued: RING,
  held: <path d="M4 2.5v7M8 2.5v7" className="hpclab-Mark-line" />,
  starting: (
    <>
      {RING}
      <path d="M6 1.8a4.2 4.2 0 0 1 0 8.4z" className="hpclab-Mark-fill" />
    </>
  ),
  running: <circle cx="6" cy="6" r="4.7" className="hpclab-Mark-fill" />,
  completing: (
    <>
      {RING}
      <path d="M6 1.8a4.2 4.2 0 0 0 0 8.4z" className="hpclab-Mark-fill" />
    </>
  ),
  ending: (
    <>
      {RING}
      <path d="M6 1.8a4.2 4.2 0 0 0 0 8.4z" className="hpclab-Mark-fill" />
    </>
  ),
  done: <path d="M2 6.5l2.8 2.8L10 3.4" className="hpclab-Mark-line" />,
  ended: <path d="M2 6.5l2.8 2.8L10 3.4" className="hpclab-Mark-line" />,
  failed: <path d="M2.6 2.6l6.8 6.8M9.4 2.6L2.6 9.4" className="hpclab-Mark-line" />,
  unreadable: <path d="M2.6 2.6l6.8 6.8M9.4 2.6L2.6 9.4" className="hpclab-Mark-line" />,
  cancelled: <path d="M2 6h8" className="hpclab-Mark-line" />,
  gone: <path d="M2 6h8" className="hpclab-Mark-line" />,
  unknown: <path d="M3.6 4a2.4 2.4 0 1 1 3.3 2.2c-.6.3-.9.6-.9 1.3M6 9.4v.9" className="hpclab-Mark-line" />
};

/** Its words stand beside it, so that a screen reader needs nothing of it. */
export function Mark({ state }: { state: State }): React.JSX.Element {
  return (
    <svg className="hpclab-Mark" data-state={state} viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
      {SHAPES[state]}
    </svg>
  );
}
