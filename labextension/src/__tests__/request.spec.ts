/** Against a real server, on this machine. */
import { createServer, IncomingMessage, Server, ServerResponse } from 'node:http';
import { AddressInfo } from 'node:net';

import { ServerConnection } from '@jupyterlab/services';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { NoAnswer, posted, Problem, requestAPI } from '../request';

let server: Server;
let settings: ServerConnection.ISettings;
let asked: { method?: string; url?: string; body: string; type?: string }[];
let answer: (response: ServerResponse) => void;

beforeEach(async () => {
  asked = [];
  answer = response => response.end('{}');
  server = createServer((request, response) => void answered(request, response));
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  settings = ServerConnection.makeSettings({ baseUrl: `http://127.0.0.1:${port}/user/ada/` });
});

afterEach(() => {
  vi.restoreAllMocks();
  server.closeAllConnections();
  server.close();
});

async function answered(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let body = '';
  for await (const part of request) {
    body += String(part);
  }
  asked.push({ method: request.method, url: request.url, body, type: request.headers['content-type'] });
  answer(response);
}

function answerWith(status: number, body: string): void {
  answer = response => response.writeHead(status).end(body);
}

async function failure(path = 'session', init?: RequestInit): Promise<Error> {
  return (await requestAPI(settings, path, init).then(
    () => new Error('it did not fail'),
    (problem: unknown) => problem
  )) as Error;
}

test('a route is under the base URL of the server', async () => {
  answerWith(200, '{"text": "all is well"}');
  expect(await requestAPI(settings, 'jobs/12/log?lines=10')).toEqual({ text: 'all is well' });
  expect(asked).toMatchObject([
    // and something that no cache has seen
    { method: 'GET', url: expect.stringMatching(/^\/user\/ada\/hpclab\/jobs\/12\/log\?lines=10&\d+$/) as string }
  ]);
});

test('what is posted is JSON', async () => {
  await requestAPI(settings, 'scale', posted({ workers: 3 }));
  expect(asked).toMatchObject([{ method: 'POST', body: '{"workers":3}', type: 'application/json' }]);
  await requestAPI(settings, 'stop', posted());
  expect(asked[1]).toMatchObject({ method: 'POST', body: '{}' });
});

test('an error of hpclab has its class and its words', async () => {
  answerWith(400, '{"error": "ConfigError", "message": "memory: not a size\\nsay 8G"}');
  const problem = await failure();
  expect(problem).toBeInstanceOf(Problem);
  expect(problem).toMatchObject({ name: 'ConfigError', message: 'memory: not a size\nsay 8G', status: 400 });
});

test('a server without hpclab is told from a job that is not there', async () => {
  answerWith(404, '<html>Not Found</html>');
  expect((await failure()).message).toContain('knows nothing of hpclab');
  answerWith(404, '{"message": "Not Found", "reason": null}');
  expect((await failure()).message).toContain('knows nothing of hpclab');
  answerWith(404, '{"error": "NoSuchJob", "message": "no job 9 in calm-otter"}');
  expect(await failure()).toMatchObject({ name: 'NoSuchJob', message: 'no job 9 in calm-otter' });
});

test.each([
  ['a page', '<html>Bad Gateway</html>', 'HTTP 502', 'Bad Gateway'],
  ['nothing', '', 'HTTP 502', 'Bad Gateway'],
  ['a list', '[1]', 'HTTP 502', 'Bad Gateway'],
  ['null', 'null', 'HTTP 502', 'Bad Gateway'],
  ['something else in the place of the words', '{"error": 7, "message": {}}', 'HTTP 502', 'Bad Gateway']
])('an error whose body is %s still has words', async (_what, body, name, message) => {
  answerWith(502, body);
  expect(await failure()).toMatchObject({ name, message });
});

test('a login page in the place of an answer is told as such, and not at length', async () => {
  answerWith(200, `<html>${'please log in '.repeat(50)}`);
  const problem = await failure();
  expect(problem).toMatchObject({ name: 'UnreadableAnswer', status: 200 });
  expect(problem.message).toContain('<html>please log in');
  expect(problem.message.length).toBeLessThan(120);
  answerWith(200, '');
  expect((await failure()).message).toContain('nothing at all');
});

test('a server that is gone gives no answer', async () => {
  await new Promise(resolve => server.close(resolve));
  const problem = await failure();
  expect(problem).toBeInstanceOf(NoAnswer);
  expect(problem.message).toContain('the tunnel may be closed');
  expect(problem.cause).toBeDefined();
});

test('so does one that hangs up in the middle', async () => {
  answer = response => {
    response.writeHead(200, { 'Content-Length': 100 });
    response.write('{"te', () => response.destroy());
  };
  expect(await failure()).toBeInstanceOf(NoAnswer);
});

test('a server that says nothing is not waited for without end; one that submits jobs longer', async () => {
  const limits: number[] = [];
  let expire = (): void => undefined;
  vi.spyOn(AbortSignal, 'timeout').mockImplementation(ms => {
    const limit = new AbortController();
    limits.push(ms);
    expire = () => limit.abort();
    return limit.signal;
  });
  answer = () => expire();
  expect(await failure()).toBeInstanceOf(NoAnswer);
  expect(await failure('scale', posted({ workers: 1 }))).toBeInstanceOf(NoAnswer);
  expect(asked).toHaveLength(2);
  expect(limits[0]).toBeLessThanOrEqual(60_000);
  expect(limits[1]).toBeGreaterThan(limits[0]);
});
