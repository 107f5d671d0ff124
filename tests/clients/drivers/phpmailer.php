<?php
// PHPMailer as WordPress and many others use it; SMTPAutoTLS keeps its default.
require_once 'libphp-phpmailer/src/PHPMailer.php';
require_once 'libphp-phpmailer/src/Exception.php';
require_once 'libphp-phpmailer/src/SMTP.php';

use PHPMailer\PHPMailer\PHPMailer;

$asked = json_decode(stream_get_contents(STDIN), true);
$given = $asked['settings'];
$mailer = new PHPMailer(true);
$mailer->isSMTP();
$mailer->SMTPKeepAlive = true;
$mailer->Timeout = 20;
$mailer->Host = $given['host'];
$mailer->Port = $given['port'];
$mailer->SMTPSecure = ['none' => '', 'starttls' => 'tls', 'implicit' => 'ssl'][$given['tls']];
if ($given['ca']) {
    $mailer->SMTPOptions = ['ssl' => ['cafile' => $given['ca']]];
}
if ($given['user'] !== null) {
    $mailer->SMTPAuth = true;
    $mailer->Username = $given['user'];
    $mailer->Password = $given['password'];
}
$told = [];
foreach ($asked['mails'] as $mail) {
    $mailer->clearAllRecipients();
    $mailer->clearAttachments();
    try {
        $mailer->CharSet = 'utf-8';
        $mailer->Encoding = '8bit';
        $mailer->dsn = $mail['dsn'];
        $mailer->setFrom($mail['sender']);
        $mailer->Sender = $mail['sender'];
        foreach ($mail['to'] as $to) {
            $mailer->addAddress($to);
        }
        foreach ($mail['cc'] as $to) {
            $mailer->addCC($to);
        }
        foreach ($mail['bcc'] as $to) {
            $mailer->addBCC($to);
        }
        $mailer->Subject = $mail['subject'];
        $mailer->Body = $mail['text'];
        if ($mail['attachment']) {
            $mailer->addStringAttachment(base64_decode($mail['attachment']['base64']), $mail['attachment']['name']);
        }
        $mailer->send();
        $told[] = ['ok' => true];
    } catch (Exception $error) {
        $told[] = ['ok' => false, 'error' => $mailer->ErrorInfo ?: $error->getMessage()];
    }
}
$mailer->smtpClose();
echo json_encode($told, JSON_INVALID_UTF8_SUBSTITUTE);
