/** The agent refuses a request; `code` and text go to the host. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
  /** `ENOENT`, `EACCES`, `EUSER`, `EINVAL`, … */
  readonly code: string;
  /** HTTP status of the reply. */
  readonly status: number;
  constructor(code: string, message: string, status = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}
