/**
 * Values as people read them, in the same words as the command line. Pure.
 */

import { IAnswer, IJob } from './tokens';

/** `43 s`, `12 min`, `1 h 59 min`, `2 d 03 h`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 100) {
    return `${whole} s`;
  }
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) {
    return `${minutes} min`;
  }
  const hours = Math.floor(minutes / 60);
  if (hours < 48) {
    return `${hours} h ${twoDigits(minutes % 60)} min`;
  }
  return `${Math.floor(hours / 24)} d ${twoDigits(hours % 24)} h`;
}

/** Hours and minutes where there is little room: `0:43`, `12:05`; the last two minutes in seconds: `48 s`. */
export function clock(seconds: number): string {
  if (seconds < 120) {
    return `${Math.max(0, Math.floor(seconds))} s`;
  }
  const minutes = Math.floor(seconds / 60);
  return `${Math.floor(minutes / 60)}:${twoDigits(minutes % 60)}`;
}

/** A moment, here: `14:05`; `Sat 22 Nov 14:05` if that is not today. */
export function moment(time_s: number, now_s: number = Date.now() / 1000): string {
  const then = new Date(time_s * 1000);
  const time = `${twoDigits(then.getHours())}:${twoDigits(then.getMinutes())}`;
  if (then.toDateString() === new Date(now_s * 1000).toDateString()) {
    return time;
  }
  const [day, month, date] = then.toDateString().split(' ');
  return `${day} ${date} ${month} ${time}`;
}

/** `2 GiB`, `1.5 GiB`, `512 MiB`: exact where it is a whole number, else one decimal. */
export function bytes(size: number): string {
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let scaled = size / 1024;
  let unit = 0;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${scaled.toFixed(1).replace(/\.0$/, '')} ${units[unit]}`;
}

/** `1 worker`, `2 workers`. */
export function counted(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

/** `12`, `3.4`, `0.05`: small ones with the digits that tell something. */
export function coreHours(hours: number): string {
  return hours >= 10 ? hours.toFixed(0) : hours >= 0.1 || hours === 0 ? hours.toFixed(1) : hours.toFixed(2);
}

/** `last known 40 s ago`. */
export function lastKnown(age_s: number): string {
  return `last known ${duration(age_s)} ago`;
}

/** A job's state: `queued`, `running`, `joined`, `2 of 4 joined`, `failed`. */
export function jobState(job: IJob): string {
  switch (job.state) {
    case 'pending':
      return 'queued';
    case 'completing':
      return 'ending';
    case 'running':
      if (job.joined === 0) {
        return 'running';
      }
      return job.joined < job.workers ? `${job.joined} of ${job.workers} joined` : 'joined';
    default:
      return job.state;
  }
}

/** The whole session on one line: `5 workers · 2 queued · 0:43 left`. Empty: there is none. */
export function summary(answer: IAnswer | null, age_s: number, isSilent: boolean): string {
  const session = answer?.session;
  if (!session) {
    return '';
  }
  const isUnknown = session.state === 'unknown';
  if (session.state !== 'running' && !isUnknown && !isSilent) {
    return `session ${session.state}`;
  }
  const parts = [...(isUnknown ? ['state unknown'] : []), counted(session.workers.joined, 'worker')];
  if (session.workers.pending) {
    parts.push(`${session.workers.pending} queued`);
  }
  if (session.time_left_s !== null) {
    parts.push(`${clock(session.time_left_s - age_s)} left`);
  }
  if (isSilent) {
    parts.push(lastKnown(age_s));
  }
  return parts.join(' · ');
}

function twoDigits(number: number): string {
  return String(number).padStart(2, '0');
}
