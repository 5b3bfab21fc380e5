/** An HTTP proxy that wants a password, as hosts in offices have one. */
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream';

/** A proxy on the loopback interface. */
export class ForwardProxy implements AsyncDisposable {
  readonly #server: Server;
  /** Requests that came with the right password. */
  served = 0;

  private constructor(credentials: string) {
    const expected = `Basic ${Buffer.from(credentials).toString('base64')}`;
    this.#server = createServer((incoming, response) => {
      if (incoming.headers['proxy-authorization'] !== expected) {
        response.writeHead(407, { 'proxy-authenticate': 'Basic realm="it"' }).end();
        return;
      }
      this.served += 1;
      const { 'proxy-authorization': _, ...headers } = incoming.headers;
      const onward = request(incoming.url ?? '', { method: incoming.method, headers });
      onward.on('response', (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        pipeline(answer, response, () => undefined);
      });
      onward.on('error', () => response.writeHead(502).end());
      pipeline(incoming, onward, () => undefined);
    });
  }

  /** @param credentials `user:password` */
  static async start(credentials: string): Promise<ForwardProxy> {
    const proxy = new ForwardProxy(credentials);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
