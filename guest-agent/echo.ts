/**
 * What `bench exec` boots in the agent's place: every byte back as it came, as a plain Node program
 * does it. The floor below the agent's streams.
 */
import { hasVsock, serveVirtioPort, serveVsock, virtioPorts, type Serve } from './channels.ts';

const echo: Serve = (socket) =>
  new Promise((resolve) => {
    socket.on('error', () => undefined); // the host closed it
    socket.once('close', resolve);
    socket.pipe(socket);
  });

for (const port of virtioPorts()) void serveVirtioPort(port, echo);
if (hasVsock()) void serveVsock(echo);
