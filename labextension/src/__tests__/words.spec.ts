import { expect, test } from 'vitest';
import { sessionIcon } from '../icons';
import { duration } from '../words';
test('x', () => { expect(duration(5)).toBe('5 s'); expect(sessionIcon.name).toBe('hpclab:session'); });
