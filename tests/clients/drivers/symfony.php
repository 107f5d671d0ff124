<?php
// Symfony Mailer as Nextcloud and Laravel set it up: an EsmtpTransport, TLS by STARTTLS wherever it is offered.
require_once 'Symfony/Component/Mailer/autoload.php';

use Symfony\Component\Mailer\Mailer;
use Symfony\Component\Mailer\Transport\Smtp\EsmtpTransport;
use Symfony\Component\Mime\Email;

$asked = json_decode(stream_get_contents(STDIN), true);
$given = $asked['settings'];
$transport = new EsmtpTransport($given['host'], $given['port'], $given['tls'] === 'implicit' ? true : null);
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
