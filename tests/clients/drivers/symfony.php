<?php
// Symfony Mailer: an EsmtpTransport, TLS by STARTTLS wherever it is offered. `nextcloud` is the text of a config.php, `laravel`
// a project's environment, `sendmail` the command of a SendmailTransport.
require_once 'Symfony/Component/Mailer/autoload.php';

use Symfony\Component\Mailer\Mailer;
use Symfony\Component\Mailer\Transport\Dsn;
use Symfony\Component\Mailer\Transport\SendmailTransport;
use Symfony\Component\Mailer\Transport\Smtp\EsmtpTransport;
use Symfony\Component\Mailer\Transport\Smtp\EsmtpTransportFactory;
use Symfony\Component\Mime\Email;

$asked = json_decode(stream_get_contents(STDIN), true);
$given = $asked['settings'];
if (isset($asked['nextcloud'])) {
    // As lib/private/Mail/Mailer.php does it.
    eval($asked['nextcloud']);
    $secure = ($CONFIG['mail_smtpsecure'] ?? null) === 'ssl' ? true : null;
    $transport = new EsmtpTransport($CONFIG['mail_smtphost'], $CONFIG['mail_smtpport'], $secure);
} elseif (isset($asked['laravel'])) {
    // As Illuminate's MailManager does it.
    $env = $asked['laravel'];
    $scheme = $env['MAIL_SCHEME'] ?? ($env['MAIL_PORT'] === '465' ? 'smtps' : 'smtp');
    $dsn = new Dsn($scheme, $env['MAIL_HOST'], $env['MAIL_USERNAME'], $env['MAIL_PASSWORD'], (int) $env['MAIL_PORT']);
    $transport = (new EsmtpTransportFactory())->create($dsn);
} elseif (isset($asked['sendmail'])) {
    $transport = new SendmailTransport($asked['sendmail']);
} else {
    $transport = new EsmtpTransport($given['host'], $given['port'], $given['tls'] === 'implicit' ? true : null);
}
if ($given['ca']) {
    $transport->getStream()->setStreamOptions(['ssl' => ['cafile' => $given['ca']]]);
}
if ($given['user'] !== null) {
    $transport->setUsername($given['user']);
    $transport->setPassword($given['password']);
}
$mailer = new Mailer($transport);
$told = [];
foreach ($asked['mails'] as $mail) {
    try {
        $message = (new Email())->from($mail['sender'])->subject($mail['subject'])->text($mail['text']);
        $message->to(...$mail['to'])->cc(...$mail['cc'])->bcc(...$mail['bcc']);
        if ($mail['attachment']) {
            $message->attach(base64_decode($mail['attachment']['base64']), $mail['attachment']['name']);
        }
        $mailer->send($message);
        $told[] = ['ok' => true];
    } catch (Exception $error) {
        $told[] = ['ok' => false, 'error' => $error->getMessage()];
    }
}
echo json_encode($told, JSON_INVALID_UTF8_SUBSTITUTE);
