/** The session's jobs: a list that shows five hundred as fast as five, for only the rows in sight are in the page. */
import * as React from 'react';
import { caretDownIcon, caretRightIcon, closeIcon, infoIcon, LabIcon, listIcon } from '@jupyterlab/ui-components';

import { ActionButton } from './button';
import { Mark } from './mark';
import { CommandIDs, IJob } from './tokens';
import { bytes, counted, duration, jobState, moment } from './words';

export const ROW_PX = 66;
const FOLD_PX = 30;
/** Rows kept ready above and below those in sight. */
const SPARE_PX = 4 * ROW_PX;

/** Carries out a command for a job; resolves when it is done. */
export type Run = (command: string, jobId: string) => Promise<unknown>;

type Item = { key: string; job: IJob; height: number } | { key: 'ended'; job: null; height: number };

interface IWorkerListProps {
  /** The oldest first. */
  jobs: IJob[];
  run: Run;
}

export function WorkerList({ jobs, run }: IWorkerListProps): React.JSX.Element {
  const [openKey, setOpenKey] = React.useState('');
  /** The one row that Tab reaches; arrows lead to the others. */
  const [currentKey, setCurrentKey] = React.useState('');
  /** Null: nobody has said whether it shall be. */
  const [isFoldOpen, setIsFoldOpen] = React.useState<boolean | null>(null);
  const [detailPx, setDetailPx] = React.useState(0);
  const [top, setTop] = React.useState(0);
  const [height, setHeight] = React.useState(10 * ROW_PX);
  const scroller = React.useRef<HTMLDivElement>(null);
  const list = React.useRef<HTMLUListElement>(null);
  const mustFocus = React.useRef(false);
  useHeight(scroller, setHeight, jobs.length > 0);

  const ended = jobs.filter(isOver);
  // where nothing but ended jobs is left, they are what one looks for
  const showsEnded = isFoldOpen ?? ended.length === jobs.length;
  const items = inOrder(jobs, showsEnded).map(item =>
    item.key === openKey ? { ...item, height: item.height + detailPx } : item
  );
  const offsets = offsetsOf(items.map(item => item.height));
  const [first, last] = inSight(offsets, top - SPARE_PX, top + height + SPARE_PX);
  const current = Math.max(
    0,
    items.findIndex(item => item.key === currentKey)
  );

  React.useLayoutEffect(() => {
    if (!mustFocus.current || !scroller.current) {
      return;
    }
    mustFocus.current = false;
    const box = scroller.current;
    if (offsets[current] < box.scrollTop) {
      box.scrollTop = offsets[current];
    } else if (offsets[current + 1] > box.scrollTop + height) {
      box.scrollTop = offsets[current + 1] - height;
    }
    list.current?.querySelector<HTMLElement>(`[data-index="${current}"] button`)?.focus({ preventScroll: true });
  });

  const onKeyDown = (event: React.KeyboardEvent): void => {
    const page = Math.max(1, Math.floor(height / ROW_PX) - 1);
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -items.length,
      End: items.length
    };
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    event.preventDefault();
    const next = Math.min(items.length - 1, Math.max(0, current + steps[event.key]));
    mustFocus.current = true;
    setCurrentKey(items[next].key);
  };

  if (jobs.length === 0) {
    return <p className="hpclab-List-empty">No jobs yet.</p>;
  }
  // the current one also out of sight, so that the focus does not get lost
  const shown = items.map((_, index) => index).filter(index => (index >= first && index < last) || index === current);
  return (
    <div
      className="hpclab-List"
      ref={scroller}
      onScroll={event => {
        // by whole rows: most scroll events then draw nothing anew
        setTop(Math.floor(event.currentTarget.scrollTop / ROW_PX) * ROW_PX);
      }}
    >
      <ul ref={list} aria-label="Jobs" style={{ height: offsets[items.length] }} onKeyDown={onKeyDown}>
        {shown.map(index => {
          const item = items[index];
          const place = {
            'data-index': index,
            'aria-setsize': items.length,
            'aria-posinset': index + 1,
            style: { top: offsets[index], height: item.height },
            onFocus: () => {
              setCurrentKey(item.key);
            }
          };
          return item.job === null ? (
            <li key={item.key} className="hpclab-Fold" {...place}>
              <button
                type="button"
                aria-expanded={showsEnded}
                tabIndex={index === current ? 0 : -1}
                onClick={() => {
                  setIsFoldOpen(!showsEnded);
                }}
              >
                <Caret isOpen={showsEnded} />
                {foldWords(ended)}
              </button>
            </li>
          ) : (
            <li key={item.key} className="hpclab-Row" data-state={item.job.state} {...place}>
              <Row
                job={item.job}
                isOpen={item.key === openKey}
                isCurrent={index === current}
                run={run}
                onToggle={() => {
                  setOpenKey(item.key === openKey ? '' : item.key);
                }}
                onDetailHeight={setDetailPx}
              />
            </li>
          );
        })}
      </ul>
    </div>
  );
}

/** Whether nothing more will become of it. */
export function isOver(job: IJob): boolean {
  return ['done', 'failed', 'cancelled', 'gone'].includes(job.state);
}

/** The main job, the others with the newest first, those that have ended below a line of their own. */
function inOrder(jobs: IJob[], showsEnded: boolean): Item[] {
  const newest = [...jobs].reverse();
  const sorted = [...newest.filter(job => job.role === 'main'), ...newest.filter(job => job.role !== 'main')];
  const item = (job: IJob): Item => ({ key: `job ${job.id}`, job, height: ROW_PX });
  const ended = sorted.filter(isOver);
  return [
    ...sorted.filter(job => !isOver(job)).map(item),
    ...(ended.length ? [{ key: 'ended', job: null, height: FOLD_PX } as const] : []),
    ...(showsEnded ? ended.map(item) : [])
  ];
}

function foldWords(ended: IJob[]): string {
  const failed = ended.filter(job => job.state === 'failed').length;
  return `ended (${ended.length})${failed ? `, ${failed} of them failed` : ''}`;
}

/** Where each begins, and at the end where the last one ends. */
export function offsetsOf(heights: number[]): number[] {
  const offsets = [0];
  for (const height of heights) {
    offsets.push(offsets[offsets.length - 1] + height);
  }
  return offsets;
}

/** The first that reaches below `from`, and the first that begins at or below `to`. */
export function inSight(offsets: number[], from: number, to: number): [number, number] {
  const count = offsets.length - 1;
  let first = 0;
  while (first < count && offsets[first + 1] <= from) {
    first++;
  }
  let last = first;
  while (last < count && offsets[last] < to) {
    last++;
  }
  return [first, last];
}

interface IRowProps {
  job: IJob;
  isOpen: boolean;
  isCurrent: boolean;
  run: Run;
  onToggle: () => void;
  onDetailHeight: (height: number) => void;
}

function Row({ job, isOpen, isCurrent, run, onToggle, onDetailHeight }: IRowProps): React.JSX.Element {
  const name = nameOf(job);
  const when = whenOf(job);
  const place = [placeOf(job), sizeOf(job)].filter(Boolean).join(' · ');
  const tabIndex = isCurrent ? 0 : -1;
  const detail = `${React.useId()}detail`;
  return (
    <>
      <button
        type="button"
        className="hpclab-Row-head"
        aria-expanded={isOpen}
        aria-controls={isOpen ? detail : undefined}
        aria-label={[name, jobState(job), when, place, usageWords(job), job.reason].filter(Boolean).join(', ')}
        tabIndex={tabIndex}
        onClick={onToggle}
      >
        <span className="hpclab-Row-first">
          <Mark state={job.state} />
          <span className="hpclab-Row-name" title={name}>
            {name}
          </span>
          <span className="hpclab-Row-state">{jobState(job)}</span>
          <span className="hpclab-Row-when">{when}</span>
        </span>
        <span className="hpclab-Row-place" title={place}>
          {place}
        </span>
        {job.reason ? (
          <span className="hpclab-Row-reason" title={job.reason}>
            {job.reason}
          </span>
        ) : (
          <Usage job={job} />
        )}
      </button>
      {!isOpen && (
        <span className="hpclab-Row-actions">
          <Actions job={job} run={run} tabIndex={tabIndex} />
        </span>
      )}
      {isOpen && <Detail id={detail} job={job} run={run} tabIndex={tabIndex} onHeight={onDetailHeight} />}
    </>
  );
}

interface IActionsProps {
  job: IJob;
  run: Run;
  tabIndex: number;
  hasWords?: boolean;
}

function Actions({ job, run, tabIndex, hasWords = false }: IActionsProps): React.JSX.Element {
  const action = (command: string, word: string, label: string, icon: LabIcon): React.JSX.Element => (
    <ActionButton
      className={hasWords ? 'hpclab-Button' : 'hpclab-IconButton'}
      aria-label={label}
      title={hasWords ? undefined : label}
      tabIndex={tabIndex}
      onAct={() => run(command, job.id)}
    >
      <icon.react tag="span" elementSize="normal" />
      {hasWords && word}
    </ActionButton>
  );
  const name = nameOf(job);
  return (
    <>
      {action(CommandIDs.why, 'Why', `Why: the story of ${name}`, infoIcon)}
      {action(CommandIDs.log, 'Log', `Log of ${name}`, listIcon)}
      {job.role === 'worker' && !isOver(job) && action(CommandIDs.retireWorker, 'Retire', `Retire ${name}`, closeIcon)}
    </>
  );
}

interface IDetailProps {
  id: string;
  job: IJob;
  run: Run;
  tabIndex: number;
  onHeight: (height: number) => void;
}

/** What has no room in a row. */
function Detail({ id, job, run, tabIndex, onHeight }: IDetailProps): React.JSX.Element {
  const box = React.useRef<HTMLDivElement>(null);
  useHeight(box, onHeight);
  const facts: [string, string][] = [
    ['Submitted', job.submit_time === null ? '' : moment(job.submit_time)],
    ['Expected', job.expected_start === null ? '' : `to start about ${moment(job.expected_start)}`],
    ['Started', job.start_time === null ? '' : moment(job.start_time)],
    [isOver(job) ? 'Ended' : 'Ends', job.end_time === null ? '' : moment(job.end_time)],
    ['Walltime', duration(job.walltime_s)],
    ['Node', job.node],
    ['Workers', isOver(job) ? '' : `${job.joined} of ${job.workers} joined, ${job.busy} at work`],
    ['In use', usageWords(job)],
    ['Exit status', job.exit_status === null ? '' : String(job.exit_status)]
  ];
  return (
    <div className="hpclab-Detail" id={id} ref={box}>
      {job.reason && <p className="hpclab-Detail-reason">{job.reason}</p>}
      <dl>
        {facts
          .filter(([, value]) => value)
          .map(([word, value]) => (
            <React.Fragment key={word}>
              <dt>{word}</dt>
              <dd>{value}</dd>
            </React.Fragment>
          ))}
      </dl>
      <div className="hpclab-Detail-actions">
        <Actions job={job} run={run} tabIndex={tabIndex} hasWords />
      </div>
    </div>
  );
}

/** How much of what it has is in use now: of the workers that have joined. */
function Usage({ job }: { job: IJob }): React.JSX.Element | null {
  const { cpu, memory } = usageOf(job);
  if (cpu === null && memory === null) {
    return null;
  }
  return (
    <span className="hpclab-Usage">
      {cpu !== null && <Meter word="CPU" value={`${Math.round(cpu * 100)} %`} fraction={cpu} />}
      {memory !== null && <Meter word="Memory" value={bytes(job.memory_used_bytes ?? 0)} fraction={memory} />}
    </span>
  );
}

function Meter({ word, value, fraction }: { word: string; value: string; fraction: number }): React.JSX.Element {
  return (
    <span className="hpclab-Meter">
      <span className="hpclab-Meter-words">
        <span>{word}</span>
        <span>{value}</span>
      </span>
      <span className="hpclab-Meter-track">
        <span className="hpclab-Meter-bar" style={{ width: `${Math.min(100, Math.max(0, fraction * 100))}%` }} />
      </span>
    </span>
  );
}

/** As fractions of what there is; null: not known. */
function usageOf(job: IJob): { cpu: number | null; memory: number | null } {
  const workers = job.joined || job.workers;
  return {
    cpu: job.cpu_percent === null ? null : job.cpu_percent / 100 / (workers * job.cores),
    memory: job.memory_used_bytes === null ? null : job.memory_used_bytes / (workers * job.memory_bytes)
  };
}

function usageWords(job: IJob): string {
  const { cpu, memory } = usageOf(job);
  const workers = job.joined || job.workers;
  return [
    cpu === null ? '' : `${Math.round(cpu * 100)} % of ${counted(workers * job.cores, 'core')}`,
    memory === null ? '' : `${bytes(job.memory_used_bytes ?? 0)} of ${bytes(workers * job.memory_bytes)}`
  ]
    .filter(Boolean)
    .join(', ');
}

function nameOf(job: IJob): string {
  return `${job.role === 'main' ? 'main job' : 'job'} ${job.id}`;
}

function whenOf(job: IJob): string {
  if (isOver(job)) {
    return job.end_time === null ? '' : moment(job.end_time);
  }
  return job.time_left_s === null ? '' : `${duration(job.time_left_s)} left`;
}

function placeOf(job: IJob): string {
  return job.node || (job.expected_start === null ? '' : `starts about ${moment(job.expected_start)}`);
}

function sizeOf(job: IJob): string {
  const times = job.workers > 1 ? `${job.workers} × ` : '';
  const gpus = job.gpus ? ` · ${times}${job.gpus} GPU${job.gpus > 1 ? 's' : ''}` : '';
  return `${times}${job.cores} core${job.cores > 1 ? 's' : ''} · ${times}${bytes(job.memory_bytes)}${gpus}`;
}

function Caret({ isOpen }: { isOpen: boolean }): React.JSX.Element {
  const Icon = isOpen ? caretDownIcon : caretRightIcon;
  return <Icon.react tag="span" elementSize="normal" className="hpclab-Caret" />;
}

/** Tells the height of an element, now and whenever it changes. */
function useHeight(element: React.RefObject<HTMLElement>, tell: (height: number) => void, isThere = true): void {
  React.useLayoutEffect(() => {
    const node = element.current;
    if (!node || !isThere) {
      return;
    }
    const observer = new ResizeObserver(() => {
      tell(node.offsetHeight);
    });
    observer.observe(node);
    return () => {
      observer.disconnect();
    };
  }, [element, tell, isThere]);
}
