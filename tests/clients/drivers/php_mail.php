<?php
// PHP's own mail(), by the sendmail program that sendmail_path names. A `sender` becomes the option -f as well.
$asked = json_decode(stream_get_contents(STDIN), true);
$told = [];
foreach ($asked['mails'] as $mail) {
    $headers = ['From' => $mail['sender'], 'Content-Type' => 'text/plain; charset=utf-8', 'Content-Transfer-Encoding' => '8bit'];
    if ($mail['bcc']) {
        $headers['Bcc'] = implode(', ', $mail['bcc']);
    }
    $ok = mail(implode(', ', $mail['to']), $mail['subject'], $mail['text'], $headers, $mail['sender'] ? "-f{$mail['sender']}" : '');
    $told[] = $ok ? ['ok' => true] : ['ok' => false, 'error' => error_get_last()['message'] ?? 'mail() is false'];
}
echo json_encode($told, JSON_INVALID_UTF8_SUBSTITUTE);
