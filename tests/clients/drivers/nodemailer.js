// nodemailer, pooled. `options` are those of a createTransport of one's own, without a pool.
const nodemailer = require('nodemailer');
const fs = require('fs');

const asked = JSON.parse(fs.readFileSync(0));
const given = asked.settings;
const transport = nodemailer.createTransport(asked.options || {
  host: given.host,
  port: given.port,
  secure: given.tls === 'implicit',
  requireTLS: given.tls === 'starttls',
  auth: given.user === null ? undefined : { user: given.user, pass: given.password },
  tls: given.ca ? { ca: fs.readFileSync(given.ca) } : undefined,
  pool: true,
  maxConnections: 1,
});

(async () => {
  const told = [];
  for (const mail of asked.mails) {
    const attachment = mail.attachment;
    try {
      await transport.sendMail({
        from: mail.sender,
        to: mail.to,
        cc: mail.cc,
        bcc: mail.bcc,
        subject: mail.subject,
        text: mail.text,
        attachments: attachment ? [{ filename: attachment.name, content: attachment.base64, encoding: 'base64' }] : [],
        dsn: mail.dsn ? { id: 'order-17', return: 'headers', notify: mail.dsn.split(','), recipient: mail.sender } : undefined,
      });
      told.push({ ok: true });
    } catch (error) {
      told.push({ ok: false, error: error.message });
    }
  }
  transport.close();
  console.log(JSON.stringify(told));
})();
